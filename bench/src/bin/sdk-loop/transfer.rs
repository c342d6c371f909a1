//! The two loops.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumType, CompletedMultipartUpload, CompletedPart};
use tokio::task::JoinSet;

use crate::options::Options;

/// Why a transfer failed.
pub type Failure = Box<dyn Error + Send + Sync>;

/// What every worker of a transfer shares: each takes the next part until there is none.
struct Job {
    client: Client,
    file: File,
    bytes: u64,
    next: AtomicU64,
    options: Options,
}

impl Job {
    /// The next part: its number (from 1), where it starts and how long it is.
    fn next(&self) -> Option<(i32, u64, usize)> {
        let part = self.next.fetch_add(1, Ordering::Relaxed);
        let size = self.options.part as u64;
        let start = part.checked_mul(size).filter(|start| *start < self.bytes)?;
        let len = usize::try_from(size.min(self.bytes - start)).ok()?;
        Some((i32::try_from(part + 1).ok()?, start, len))
    }
}

/// Uploads the file in parts.
pub async fn put(options: Options) -> Result<(), Failure> {
    let client = options.client()?;
    let file = File::open(&options.file)?;
    let bytes = file.metadata()?.len();
    let (bucket, key, workers) = (options.bucket.clone(), options.key.clone(), options.workers);
    let whole = matches!(&options.checksum, Some(kind) if kind.as_str() == "CRC64NVME");
    let upload = client
        .create_multipart_upload()
        .bucket(&bucket)
        .key(&key)
        .set_checksum_algorithm(options.checksum.clone())
        .set_checksum_type(whole.then_some(ChecksumType::FullObject))
        .send()
        .await?;
    let id: Arc<str> = upload.upload_id().ok_or("no upload id")?.into();
    let job = Arc::new(Job { client: client.clone(), file, bytes, next: AtomicU64::new(0), options });
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        tasks.spawn(put_parts(Arc::clone(&job), Arc::clone(&id)));
    }
    let mut parts = Vec::new();
    while let Some(done) = tasks.join_next().await {
        parts.extend(done??);
    }
    parts.sort_by_key(CompletedPart::part_number);
    client
        .complete_multipart_upload()
        .bucket(bucket)
        .key(key)
        .upload_id(&*id)
        .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
        .send()
        .await?;
    Ok(())
}

async fn put_parts(job: Arc<Job>, id: Arc<str>) -> Result<Vec<CompletedPart>, Failure> {
    let mut parts = Vec::new();
    while let Some((number, start, len)) = job.next() {
        let mut body = vec![0; len];
        job.file.read_exact_at(&mut body, start)?;
        let request = job
            .client
            .upload_part()
            .bucket(&job.options.bucket)
            .key(&job.options.key)
            .upload_id(&*id)
            .part_number(number)
            .set_checksum_algorithm(job.options.checksum.clone())
            .body(ByteStream::from(body));
        let sent = if job.options.sign {
            request.send().await?
        } else {
            request.customize().disable_payload_signing().send().await?
        };
        parts.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(sent.e_tag)
                .set_checksum_crc32(sent.checksum_crc32)
                .set_checksum_crc32_c(sent.checksum_crc32_c)
                .set_checksum_crc64_nvme(sent.checksum_crc64_nvme)
                .set_checksum_sha256(sent.checksum_sha256)
                .build(),
        );
    }
    Ok(parts)
}

/// Downloads the object in ranges.
pub async fn get(options: Options) -> Result<(), Failure> {
    let client = options.client()?;
    let head = client.head_object().bucket(&options.bucket).key(&options.key).send().await?;
    let bytes = u64::try_from(head.content_length().ok_or("no length")?)?;
    let file = File::create(&options.file)?;
    let workers = options.workers;
    let job = Arc::new(Job { client, file, bytes, next: AtomicU64::new(0), options });
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        tasks.spawn(get_ranges(Arc::clone(&job)));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn get_ranges(job: Arc<Job>) -> Result<(), Failure> {
    while let Some((_, start, len)) = job.next() {
        let (mut at, end) = (start, start + len as u64);
        let request = job.client.get_object().bucket(&job.options.bucket).key(&job.options.key);
        let mut body = request.range(format!("bytes={start}-{}", end - 1)).send().await?.body;
        while let Some(piece) = body.try_next().await? {
            job.file.write_all_at(&piece, at)?;
            at += piece.len() as u64;
        }
        if at != end {
            return Err(format!("{at} instead of {end}: a short answer").into());
        }
    }
    Ok(())
}
