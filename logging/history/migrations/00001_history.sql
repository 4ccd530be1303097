-- +goose Up
-- Times are microseconds since 1970, UTC; 0 is none. Texts are never null.

-- What stands above "first_at" makes the ID.
CREATE TABLE site (
    id           text PRIMARY KEY,
    cluster      text NOT NULL,
    service      text NOT NULL,
    family       text NOT NULL,
    source       text NOT NULL,
    principal    text NOT NULL,
    vpc_endpoint text NOT NULL,
    unidentified bigint NOT NULL,
    via          bigint NOT NULL,
    protocol     bigint NOT NULL,
    host         text NOT NULL,
    port         bigint NOT NULL,
    inspected    bigint NOT NULL,
    s3           text NOT NULL,   -- JSON of the reference and the call, '' where the host is not S3's
    bucket       text NOT NULL,   -- of s3: the bucket, else the access point
    verdict      bigint NOT NULL, -- 0 deny, 1 allow
    would_deny   bigint NOT NULL,
    reason       text NOT NULL,
    rule         text NOT NULL,

    first_at     bigint NOT NULL,
    last_at      bigint NOT NULL,
    visits       bigint NOT NULL,
    failed       bigint NOT NULL,
    sent         bigint NOT NULL,
    received     bigint NOT NULL,
    client       text NOT NULL,   -- of the last visit
    task         text NOT NULL    -- likewise
);

-- What was done in an hour (start: its first microsecond), and in a day.
CREATE TABLE hour (
    site     text NOT NULL,
    start    bigint NOT NULL,
    visits   bigint NOT NULL,
    failed   bigint NOT NULL,
    sent     bigint NOT NULL,
    received bigint NOT NULL,
    PRIMARY KEY (start, site)
);

CREATE TABLE day (
    site     text NOT NULL,
    start    bigint NOT NULL,
    visits   bigint NOT NULL,
    failed   bigint NOT NULL,
    sent     bigint NOT NULL,
    received bigint NOT NULL,
    PRIMARY KEY (start, site)
);

-- Tasks (kind 't', an ID) and revisions (kind 'r', FAMILY:REVISION) of a site.
CREATE TABLE trait (
    site     text NOT NULL,
    kind     text NOT NULL,
    value    text NOT NULL,
    first_at bigint NOT NULL,
    last_at  bigint NOT NULL,
    PRIMARY KEY (site, kind, value)
);

CREATE INDEX trait_value ON trait (kind, value);

CREATE TABLE task (
    id       text PRIMARY KEY, -- of everything below but last_at
    arn      text NOT NULL,
    cluster  text NOT NULL,
    service  text NOT NULL,
    family   text NOT NULL,
    revision bigint NOT NULL,
    tags     text NOT NULL,    -- a JSON object
    last_at  bigint NOT NULL
);

CREATE INDEX task_arn ON task (arn);

CREATE TABLE flow (
    id             text PRIMARY KEY, -- ULID: sorts by time
    site           text NOT NULL,
    instance       text NOT NULL,
    task           text NOT NULL,
    start_at       bigint NOT NULL,
    end_at         bigint NOT NULL,
    host           text NOT NULL,    -- '' where it is the site's
    client         text NOT NULL,
    peer           text NOT NULL,
    original       text NOT NULL,
    mode           bigint NOT NULL,
    policy_version text NOT NULL,
    outcome        text NOT NULL,
    ended_by       text NOT NULL,
    sent           bigint NOT NULL,
    received       bigint NOT NULL,
    detail         text NOT NULL     -- JSON, '' for none
);

CREATE INDEX flow_site ON flow (site, id);

CREATE TABLE version (
    id       text PRIMARY KEY, -- ULID
    version  text NOT NULL,
    at       bigint NOT NULL,
    instance text NOT NULL,
    who      text NOT NULL,
    note     text NOT NULL,
    texts    text NOT NULL,    -- JSON: [{"name": …, "text": …}]
    previous text NOT NULL,
    diff     text NOT NULL
);

CREATE TABLE overlay (
    id             text PRIMARY KEY, -- ULID
    at             bigint NOT NULL,
    name           text NOT NULL,
    document       text NOT NULL,
    author         text NOT NULL,
    reason         text NOT NULL,
    until_at       bigint NOT NULL, -- 0: for good
    revoked_at     bigint NOT NULL,
    revoked_by     text NOT NULL,
    revoked_reason text NOT NULL
);

CREATE TABLE anomaly (
    id              text PRIMARY KEY, -- ULID
    kind            text NOT NULL,
    caller          text NOT NULL,
    subject         text NOT NULL,
    site            text NOT NULL,
    severity        bigint NOT NULL,
    evidence        text NOT NULL,    -- JSON
    first_at        bigint NOT NULL,
    last_at         bigint NOT NULL,
    times           bigint NOT NULL,
    acknowledged_at bigint NOT NULL,
    benign          bigint NOT NULL,
    who             text NOT NULL,
    why             text NOT NULL,
    UNIQUE (kind, caller, subject)
);

CREATE TABLE baseline (
    name text PRIMARY KEY,
    at   bigint NOT NULL,
    data text NOT NULL
);

-- Which batches of a run of a proxy were taken: a batch whose commit was never
-- answered is not added twice.
CREATE TABLE writer (
    session  text PRIMARY KEY, -- ULID of the run
    instance text NOT NULL,
    n        bigint NOT NULL,
    at       bigint NOT NULL
);

CREATE TABLE gap (
    id       text PRIMARY KEY, -- ULID
    instance text NOT NULL,
    from_at  bigint NOT NULL,
    to_at    bigint NOT NULL,
    events   bigint NOT NULL,
    flows    bigint NOT NULL,
    reason   text NOT NULL
);

-- Counts changes of a table that others wait for.
CREATE TABLE change (
    name text PRIMARY KEY,
    n    bigint NOT NULL
);
