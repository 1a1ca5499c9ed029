"""Takes the next number of a counter for one order, once, however often the network or the server fails on the way.

python3 retry.py [COUNTER] [ORDER]; README.md beside this file names the settings. Python 3.9 or newer, nothing else.
An order has one Idempotency-Key, which is stored before the first try and sent with every try.
"""

import http.client
import json
import os
import random
import ssl
import sys
import time
import uuid
from contextlib import closing
from urllib.parse import quote, urlsplit

TRY = 5  # seconds for each step of a try: connecting, sending, a piece of the answer
LIMIT = 60  # seconds for all tries: no later one is begun

URL = urlsplit(os.environ["ODOMETER_URL"])
KEY = os.environ["ODOMETER_KEY"]
# Trusts nobody but this certificate, and whom it vouches for; the host's name is checked too.
TLS = ssl.create_default_context(cafile=os.environ["ODOMETER_CACERT"])


def key_of(order):
    """The order's key, made before the first try. The file stands for your database, where the key is committed with
    the order: so it outlives this process, and the process that goes on after a crash asks for the same number."""
    try:
        with open(order, "x") as file:
            file.write(str(uuid.uuid4()))
    except FileExistsError:
        pass
    with open(order) as file:
        return file.read()


def send(path, headers, body):
    """One try, on a connection of its own."""
    # Always TLS, whatever the address says: a key that travels in clear is lost.
    with closing(http.client.HTTPSConnection(URL.hostname, URL.port, timeout=TRY, context=TLS)) as connection:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
    is_json = "json" in answer.headers.get("Content-Type", "")  # a proxy's error page is not
    return answer.status, answer.headers, json.loads(text) if is_json else {}


def ask(until, path, parameters, key=None):
    """Sends one request until it is answered for good: the same bytes, and so the same key, with every try."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    backoff = 0.1
    while True:
        wait = 0
        try:
            status, answered, document = send(path, headers, json.dumps(parameters))
            code = document.get("errors", [{}])[0].get("code", "")
            if status not in (408, 429) and status < 500:
                return status, answered, document, code
            # Not for good. Nor is outcome_unknown: the same key gets the number that was taken, or takes it now.
            why = f"{status} {code}"
            asked = answered.get("Retry-After", "")
            wait = int(asked) if asked.isdecimal() else 0
        except ssl.SSLCertVerificationError:
            raise  # somebody else's certificate: waiting does not mend it
        except (OSError, http.client.HTTPException) as error:  # time-outs and answers that were cut off are among these
            why = f"no answer: {error!r}"
        # At least as long as the server asks for. The random part keeps those apart who failed together.
        pause = wait + random.uniform(0, backoff)
        if time.monotonic() + pause >= until:
            sys.exit(f"gave up: {why}; a number may be taken, so run it again, same order")
        print(f"{why}; the same request again in {pause:.3f} s", file=sys.stderr, flush=True)
        time.sleep(pause)
        backoff = min(2 * backoff, 3)


counter = sys.argv[1] if len(sys.argv) > 1 else "invoices"
order = sys.argv[2] if len(sys.argv) > 2 else "order-4711.txt"
key, until = key_of(order), time.monotonic() + LIMIT
increment = f"/api/v1/counters/{quote(counter, safe='')}/increment"
status, headers, document, code = ask(until, increment, {}, key)
if code == "counter_not_found":
    # Created without the key, which stands for one request: the increment. If the answer to this is lost, or somebody
    # else was faster, the next try is told counter_exists, and that is as good.
    status, headers, document, code = ask(until, "/api/v1/counters", {"name": counter, "start": 0})
    if status == 201 or code == "counter_exists":
        status, headers, document, code = ask(until, increment, {}, key)  # a refusal uses no key up
# 409 counter_exhausted: the last number is issued, and a person has to decide. 422 idempotency_key_reused: the key went
# with another request before. A new key would hide that mistake, and could take this order a second number.
if status != 200:
    sys.exit(f"refused: {status} {document}")
replayed = headers.get("Idempotency-Replayed") == "true"
print(f"{counter}: {document['data']['attributes']['value']}, {'replayed' if replayed else 'new'}")
