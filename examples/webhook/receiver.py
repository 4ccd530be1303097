#!/usr/bin/env python3
"""Takes sallyport's webhook: verifies, drops what it has, prints the rest.

    WEBHOOK_SECRET=... receiver.py [PORT]

Messages are signed by the specification of Standard Webhooks, for which there
are libraries in most languages. This needs none. Put TLS in front of it.
"""
import base64
import collections
import hashlib
import hmac
import http.server
import json
import os
import sys
import time

TOLERANCE = 300  # seconds that a message may be old, or ahead of this clock
LARGEST = 1 << 20

secret = os.environ["WEBHOOK_SECRET"]
key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
seen = collections.OrderedDict()  # IDs: a message may come more than once


def verified(headers, body):
    ident, at = headers.get("Webhook-Id", ""), headers.get("Webhook-Timestamp", "")
    if not at.isdigit() or abs(time.time() - int(at)) > TOLERANCE:
        return False
    want = hmac.new(key, f"{ident}.{at}.".encode() + body, hashlib.sha256).digest()
    given = headers.get("Webhook-Signature", "").split()
    return any(hmac.compare_digest("v1," + base64.b64encode(want).decode(), g) for g in given)


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            return self.answer(413)
        body = self.rfile.read(int(length))
        if not verified(self.headers, body):
            return self.answer(401)
        if self.headers["Webhook-Id"] not in seen:
            found = json.loads(body)["data"]
            print(found["severity"], found["kind"], found["caller"], found["subject"], found["evidence"]["text"], sep="\t", flush=True)
            seen[self.headers["Webhook-Id"]] = True
            if len(seen) > 10_000:
                seen.popitem(last=False)
        self.answer(204)  # only now: what is not answered comes again

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Receiver)
print("listening on", server.server_port, file=sys.stderr, flush=True)
server.serve_forever()
