"""Runs in a guest: what botocore finds out at EC2's IMDS: credentials, and the region."""

import json
import logging
import sys

import botocore.session
from botocore.utils import IMDSRegionProvider, InstanceMetadataFetcher

logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
credentials = InstanceMetadataFetcher(timeout=2).retrieve_iam_role_credentials()
region = IMDSRegionProvider(botocore.session.Session()).provide()
required = InstanceMetadataFetcher(timeout=2, config={"ec2_metadata_v1_disabled": True})
json.dump(
    {
        "credentials": credentials,
        "region": region,
        "with_token": required.retrieve_iam_role_credentials(),
    },
    sys.stdout,
    default=str,
)
