-- The database in which a fleet remembers, and who may do what in it. Run it once
-- as the administrator of a PostgreSQL 15 or later; on RDS the master user is enough:
--
--   psql -X -v ON_ERROR_STOP=1 -h HOST -U postgres -d postgres -f sallyport.sql
--
-- It sets no passwords, and without one nobody logs in. Set them in psql, which
-- hashes them before they travel: \password sallyport, \password sallyport_reader

-- The proxies. They make and change their own tables, and nothing else. Each
-- holds four connections at most; an update runs old and new tasks together.
CREATE ROLE sallyport LOGIN NOINHERIT CONNECTION LIMIT 100;
-- Pipelines and people: who talked to whom, to look at.
CREATE ROLE sallyport_reader LOGIN NOINHERIT CONNECTION LIMIT 20;

CREATE DATABASE sallyport TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE sallyport FROM PUBLIC;
GRANT CONNECT ON DATABASE sallyport TO sallyport, sallyport_reader;

\connect sallyport
REVOKE ALL ON SCHEMA public FROM PUBLIC;
-- Who is no superuser makes a schema only for a role that he is a member of.
GRANT sallyport TO CURRENT_USER;
CREATE SCHEMA sallyport AUTHORIZATION sallyport;
SET ROLE sallyport;
GRANT USAGE ON SCHEMA sallyport TO sallyport_reader;
-- The tables come with the first proxy, and with later versions.
ALTER DEFAULT PRIVILEGES IN SCHEMA sallyport GRANT SELECT ON TABLES TO sallyport_reader;
RESET ROLE;
REVOKE sallyport FROM CURRENT_USER;
