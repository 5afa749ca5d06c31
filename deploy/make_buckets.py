"""Make the buckets that are named, where they are not there: what ``deploy/compose.yaml`` starts first."""

import sys

import boto3

client = boto3.client("s3")
there = {entry["Name"] for entry in client.list_buckets()["Buckets"]}
for name in sys.argv[1:]:
    if name not in there:
        client.create_bucket(Bucket=name)
        print(f"bucket {name}: made")
