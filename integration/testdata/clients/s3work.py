"""A day's work with S3, by boto3.

s3work.py STYLE BUCKET [BIG] prints a line for each step: what the client got,
less what differs from run to run. At its end the bucket is empty again.
"""

import hashlib
import io
import json
import os
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

style, bucket = sys.argv[1:3]
s3 = boto3.client(
    "s3",
    config=Config(
        s3={"addressing_style": style},
        signature_version="s3v4",
        max_pool_connections=20,
        read_timeout=600,
    ),
)


def content(seed, size):
    block = hashlib.sha256(seed.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def step(name, call):
    try:
        out = call()
    except ClientError as e:
        out = {"code": e.response["Error"]["Code"], "message": e.response["Error"].get("Message"), "status": e.response["ResponseMetadata"]["HTTPStatusCode"]}
    if isinstance(out, dict):
        out.pop("ResponseMetadata", None)
        out.pop("LastModified", None)
        if "CopyObjectResult" in out:
            out["CopyObjectResult"].pop("LastModified", None)
        if "CopyPartResult" in out:
            out["CopyPartResult"].pop("LastModified", None)
        if "Body" in out:
            out["Body"] = digest(out["Body"].read())
    print(json.dumps({"step": name, "out": out}, sort_keys=True, default=str), flush=True)


def get(key, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)


def put(key, body, **more):
    return s3.put_object(Bucket=bucket, Key=key, Body=body, **more)


def fetch(method, url, data=None):
    request = urllib.request.Request(url, data=data, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return {"status": response.status, "sha256": digest(response.read()), "etag": response.headers["ETag"]}
    except urllib.error.HTTPError as e:
        return {"status": e.code}


odd = ["a b+c/\u00fc/%41/..x//y", "~", "'()*", "k=1&l=2;m", "@:,$!?#[]", "\U0001f511/\u20ac", "..x/.y", "plus+and%2Bplus"]

step("put", lambda: put("plain.txt", b"hello", ContentType="text/plain", Metadata={"who": "boto3"}))
step("put empty", lambda: put("empty", b""))
for algorithm in ["CRC32", "SHA1", "SHA256"]:
    step("put " + algorithm, lambda: put("sum-" + algorithm, content(algorithm, 100_000), ChecksumAlgorithm=algorithm))
    step("get " + algorithm, lambda: get("sum-" + algorithm, ChecksumMode="ENABLED"))
step("put a file", lambda: put("file", io.BytesIO(content("file", 3 << 20))))
for key in odd:
    step("put " + key, lambda: put(key, content(key, 1000)))
    step("head " + key, lambda: s3.head_object(Bucket=bucket, Key=key))
    step("get " + key, lambda: get(key))
    step("copy " + key, lambda: s3.copy_object(Bucket=bucket, Key="copies/" + key, CopySource={"Bucket": bucket, "Key": key}))
step("get", lambda: get("plain.txt"))
step("get a range", lambda: get("file", Range="bytes=1000-1999"))
step("get what is not there", lambda: get("nothing"))
step("get if changed", lambda: get("plain.txt", IfNoneMatch='"5d41402abc4b2a76b9719d911017c592"'))
step("get if it is another", lambda: get("plain.txt", IfMatch='"0"'))


def listing():
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 4})
    return [[o["Key"], o["Size"], o["ETag"]] for p in pages for o in p.get("Contents", [])]


step("list", listing)
step("list folders", lambda: [p["Prefix"] for p in s3.list_objects_v2(Bucket=bucket, Delimiter="/")["CommonPrefixes"]])
step("location", lambda: s3.get_bucket_location(Bucket=bucket)["LocationConstraint"])

transfer = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
big = content("big", 17 << 20)


def upload():
    s3.upload_fileobj(io.BytesIO(big), bucket, "big", Config=transfer)
    return s3.head_object(Bucket=bucket, Key="big")


def download():
    into = io.BytesIO()
    s3.download_fileobj(bucket, "big", into, Config=transfer)
    return digest(into.getvalue()) == digest(big)


step("upload in parts", upload)
step("download in parts", download)


def part_copy():
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="joined")["UploadId"]
    parts = []
    for i, bounds in enumerate(["bytes=0-5242879", "bytes=5242880-5250000"]):
        part = s3.upload_part_copy(Bucket=bucket, Key="joined", UploadId=upload_id, PartNumber=i + 1, CopySource={"Bucket": bucket, "Key": "big"}, CopySourceRange=bounds)
        parts.append({"PartNumber": i + 1, "ETag": part["CopyPartResult"]["ETag"]})
    return s3.complete_multipart_upload(Bucket=bucket, Key="joined", UploadId=upload_id, MultipartUpload={"Parts": parts})["ETag"]


def give_up():
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="never")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="never", UploadId=upload_id, PartNumber=1, Body=b"x" * 1000)
    return s3.abort_multipart_upload(Bucket=bucket, Key="never", UploadId=upload_id)


step("join copies", part_copy)
step("abort", give_up)


def presign(method, key):
    return s3.generate_presigned_url(method, Params={"Bucket": bucket, "Key": key}, ExpiresIn=600)


step("presigned put", lambda: fetch("PUT", presign("put_object", "signed in the URL"), b"by whoever has it"))
step("presigned get", lambda: fetch("GET", presign("get_object", "signed in the URL")))


def at_once(i):
    key, data = f"many/{i}", content(str(i), 200_000)
    put(key, data)
    return get(key)["Body"].read() == data


with ThreadPoolExecutor(20) as pool:
    step("twenty at once", lambda: list(pool.map(at_once, range(20))))


def empty():
    keys = [{"Key": k} for k, _, _ in listing()]
    s3.delete_object(Bucket=bucket, Key=keys.pop()["Key"])
    gone = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})
    return [len(gone["Deleted"]), len(gone.get("Errors", [])), listing()]


step("delete", empty)
