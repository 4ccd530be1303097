"""Gets objects with boto3 and prints a JSON line for each.

    s3get.py BUCKET/KEY...
"""

import json
import sys

import boto3
from botocore.config import Config

s3 = boto3.client("s3", config=Config(retries={"max_attempts": 0}, connect_timeout=60, read_timeout=60, s3={"addressing_style": sys.argv[1]}))
for where in sys.argv[2:]:
    bucket, key = where.split("/", 1)
    try:
        answer = {"body": s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()}
    except Exception as error:  # what the client says is what the test is about
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
