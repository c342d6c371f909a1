//! Making and emptying the bucket of the bench.

use aws_sdk_s3::primitives::ByteStream;

use crate::options::Options;
use crate::transfer::Failure;

/// Makes the bucket, if it is not there, and writes to it.
pub async fn make(options: &Options) -> Result<(), Failure> {
    let client = options.client()?;
    if client.head_bucket().bucket(&options.bucket).send().await.is_err() {
        client.create_bucket().bucket(&options.bucket).send().await?;
    }
    client.put_object().bucket(&options.bucket).key("ready").body(ByteStream::from_static(b"ready")).send().await?;
    Ok(())
}

/// Removes everything from the bucket.
pub async fn clear(options: &Options) -> Result<(), Failure> {
    let client = options.client()?;
    let mut pages = client.list_objects_v2().bucket(&options.bucket).into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        keys.extend(page?.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
    }
    for key in keys {
        client.delete_object().bucket(&options.bucket).key(key).send().await?;
    }
    Ok(())
}
