"""Python's HTTP clients, one by one: prints a JSON line for each URL with what
the client got, or what it says went wrong.

    clients.py NAME URL...      NAME is urllib, tunnel or requests
"""

import http.client
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request


def by_urllib(url):
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def by_tunnel(url):
    """http.client's set_tunnel, as libraries use it that know no variables."""
    proxy, to = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"]), urllib.parse.urlsplit(url)
    connection = http.client.HTTPSConnection(proxy.hostname, proxy.port, timeout=60)
    connection.set_tunnel(to.hostname, 443)
    try:
        connection.request("GET", to.path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def by_requests(url):
    import requests

    response = requests.get(url, timeout=60)
    return response.status_code, response.text


get = {"urllib": by_urllib, "tunnel": by_tunnel, "requests": by_requests}[sys.argv[1]]
for url in sys.argv[2:]:
    try:
        status, body = get(url)
        answer = {"status": status, "body": body}
    except Exception as error:  # what the client says is what the test is about
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
