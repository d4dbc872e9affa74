"""Runs in a guest: azure-identity asks for tokens; argv has the identity's client ID, if any."""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    CredentialUnavailableError,
    DefaultAzureCredential,
    ManagedIdentityCredential,
)


def ask(make: Callable[[], Any]) -> dict[str, Any]:
    try:
        token = make().get_token("https://management.azure.com/.default")
    except (CredentialUnavailableError, ClientAuthenticationError) as error:
        return {"said": f"{type(error).__name__}: {error.message}"}
    return {"said": "a token", "token": token.token, "expires_on": token.expires_on}


logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
told = {"default": ask(ManagedIdentityCredential)}
if sys.argv[1:]:
    told["by_client_id"] = ask(lambda: ManagedIdentityCredential(client_id=sys.argv[1]))
    told["in_a_chain"] = ask(DefaultAzureCredential)
json.dump(told, sys.stdout)
