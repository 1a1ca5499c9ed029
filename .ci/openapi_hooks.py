"""Credentials for the requests of .ci/openapi, chosen by what a request would do to its tenant.

Most requests have the key of the run's tenant; those that take a password too have the one or the other in turn. A request that changes a password or
deletes a tenant gets a tenant of its own, so that it succeeds each time and the others still have theirs. The run's own key is never revoked.
"""

import itertools
import os
import re

import requests
import schemathesis
from requests.auth import _basic_auth_str

BASE = os.environ["ODOMETER_API_URL"]
CERTIFICATE = os.environ["ODOMETER_API_CERTIFICATE"]
NAME = os.environ["ODOMETER_API_NAME"]
KEY = os.environ["ODOMETER_API_KEY"]
PASSWORD = os.environ["ODOMETER_API_PASSWORD"]

# Of `odo_<id>_<secret>`.
OWN_ID = KEY.split("_")[1]
PROPER = re.compile("[!-~]{1,255}")
NUMBERS = itertools.count()
TURNS = itertools.cycle([f"Bearer {KEY}", _basic_auth_str(NAME, PASSWORD)])


class Credential:
    """Sets what `get` makes, for each request anew."""

    def set(self, case, data, context):
        case.headers["Authorization"] = data


@schemathesis.auth(refresh_interval=None).apply_to(path_regex="^/api/v1/(integer|counters)")
class OfKey(Credential):
    def get(self, case, context):
        return f"Bearer {KEY}"


@schemathesis.auth(refresh_interval=None).apply_to(path_regex="^/api/v1/keys").apply_to(path="/api/v1/tenant", method="GET")
class OfEither(Credential):
    def get(self, case, context):
        return next(TURNS)


@schemathesis.auth(refresh_interval=None).apply_to(path="/api/v1/tenant", method="DELETE").apply_to(
    path="/api/v1/tenant/password"
)
class OfOwnTenant(Credential):
    def get(self, case, context):
        name = f"own-{next(NUMBERS)}"
        body = {"username": name, "password": PASSWORD}
        made = requests.post(f"{BASE}/api/v1/tenants", json=body, verify=CERTIFICATE, timeout=10)
        made.raise_for_status()
        return _basic_auth_str(name, PASSWORD)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.path_parameters and case.path_parameters.get("id") == OWN_ID:
        case.path_parameters["id"] = "0" * len(OWN_ID)
    # A counter that was created once, deleted, and "created" again with the same key is answered 201 and not there: right, and no finding.
    if case.operation.definition.raw.get("operationId") == "createCounter":
        key = case.headers.get("Idempotency-Key")
        if isinstance(key, str) and PROPER.fullmatch(key):
            case.headers["Idempotency-Key"] = f"create-{next(NUMBERS)}"
