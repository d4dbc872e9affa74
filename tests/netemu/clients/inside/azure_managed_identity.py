"""Runs in a guest: azure-identity asks for a token; there is no identity, and it is told so."""

import json
import logging
import sys

from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError, ManagedIdentityCredential

logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
try:
    ManagedIdentityCredential().get_token("https://management.azure.com/.default")
    said = "a token"
except (CredentialUnavailableError, ClientAuthenticationError) as error:
    said = f"{type(error).__name__}: {error.message}"
json.dump({"said": said}, sys.stdout)
