//! A vault in S3 or an S3-compatible server, through the AWS SDK. Small objects carry conditions, payloads go in
//! parts with a CRC-64/NVME each and one over the whole. What fails for a passing reason is tried again with growing,
//! jittered pauses; what fails for good says which bucket, key and operation, and why.

use crate::aws::{Aws, classify};
use crate::body::{self, Body};
use crate::error::{Cause, Result, StoreError};
use crate::retry::Patience;
use crate::store::{Condition, Item, Meta, Part, Receiver, Store, Take, Upload, Whole, crc64};
use ask::{Alone, Ask, Now};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, DateTime, SdkBody};
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use std::ops::Range;

mod ask;

/// Makes a body on another thread while `send` sends it. What the maker says comes before what the server says of a body
/// that ends too early.
fn pour<T>(body: &Body<'_>, send: impl FnOnce(SdkBody) -> Result<T>) -> Result<Result<T>> {
    let (give, tap, sdk) = body::made(body.len());
    std::thread::scope(|scope| {
        let maker = scope.spawn(move || {
            let mut over = false;
            let made = body.each(&mut |piece| {
                over = give.blocking_send(piece).is_err();
                if over {
                    Err(StoreError::new("UploadPart", "", Cause::Connection, "the request has ended"))
                } else {
                    Ok(())
                }
            });
            if over { Ok(()) } else { made }
        });
        let answer = send(sdk);
        tap.close();
        match maker.join() {
            Ok(made) => made.map(|()| answer),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The object metadata that says who published.
const PUBLISHER: &str = "mvault-publisher";

/// A vault below a prefix of a bucket.
pub struct S3 {
    aws: Aws,
    client: Client,
    bucket: String,
    /// Empty, or ending in `/`.
    prefix: String,
}

impl S3 {
    /// The vault at `s3://bucket/prefix`.
    pub fn new(aws: Aws, bucket: &str, prefix: &str) -> Self {
        let config = aws.s3().build();
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { client: Client::from_conf(config), aws, bucket: bucket.into(), prefix }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn ask(&self, key: &str, range: Range<u64>) -> Ask {
        Ask::new(&self.client, &self.bucket, self.key(key), range)
    }
}

impl Store for S3 {
    fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }

    fn place(&self, key: &str) -> String {
        format!("s3://{}/{}{key}", self.bucket, self.prefix)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn read(&self, key: &str, max: usize) -> Result<(Vec<u8>, Meta)> {
        let (operation, place) = ("GetObject", self.place(key));
        let mut patience = Patience::first();
        loop {
            let read = self.aws.wait(async {
                let request = self.client.get_object().bucket(&self.bucket).key(self.key(key));
                let answer = request.send().await.map_err(|e| classify(operation, &place, &e))?;
                let meta = Meta {
                    size: u64::try_from(answer.content_length().unwrap_or_default()).unwrap_or_default(),
                    etag: answer.e_tag().unwrap_or_default().into(),
                    modified: answer.last_modified().and_then(seconds),
                    publisher: answer.metadata().and_then(|m| m.get(PUBLISHER)).map(|p| ascii(p)),
                };
                let (mut bytes, mut body) = (Vec::new(), answer.body);
                while let Some(frame) = body.try_next().await.map_err(|e| {
                    let cause = if e.to_string().contains("checksum") { Cause::BadDigest } else { Cause::Connection };
                    StoreError::new(operation, &place, cause, format!("the answer broke off: {e}"))
                })? {
                    if bytes.len() + frame.len() > max {
                        let message = format!("larger than {max} bytes");
                        return Err(StoreError::new(operation, &place, Cause::Malformed, message));
                    }
                    bytes.extend_from_slice(&frame);
                }
                Ok((bytes, meta))
            });
            match read {
                Err(e) if e.status.is_none() && patience.again(&e) => {}
                done => return done,
            }
        }
    }

    fn head(&self, key: &str) -> Result<Meta> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.key(key));
        let answer = match self.aws.wait(request.send()) {
            Ok(answer) => answer,
            Err(e) => {
                let e = classify("HeadObject", &self.place(key), &e);
                // An answer to HEAD has no body to say why: one to GET has.
                let silent = e.status.is_some() && e.code.is_none() && e.cause != Cause::NotFound;
                return Err(if silent {
                    self.aws.wait(self.ask(key, 0..1).get(&mut 0, &mut Now(|_: &[u8]| Ok(())))).err().unwrap_or(e)
                } else {
                    e
                });
            }
        };
        Ok(Meta {
            size: u64::try_from(answer.content_length().unwrap_or_default()).unwrap_or_default(),
            etag: answer.e_tag().unwrap_or_default().into(),
            modified: answer.last_modified().and_then(seconds),
            publisher: answer.metadata().and_then(|m| m.get(PUBLISHER)).map(|p| ascii(p)),
        })
    }

    fn fetch(&self, key: &str, range: Range<u64>, take: &mut Take<'_>) -> Result<u64> {
        self.aws.wait(self.ask(key, range).all(&mut Now(take)))
    }

    fn fetch_into(&self, key: &str, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.clear();
        buffer.reserve_exact(usize::try_from(range.end - range.start).unwrap_or_default());
        let (ask, mut taken) = (self.ask(key, range), std::mem::take(buffer));
        let got;
        (*buffer, got) = self.aws.wait_there(async move {
            let mut take = Now(|data: &[u8]| {
                taken.extend_from_slice(data);
                Ok(())
            });
            let got = ask.all(&mut take).await;
            (taken, got)
        });
        got.map(drop)
    }

    fn receiver(&self) -> Result<Option<Box<dyn Receiver>>> {
        let (config, runtime) = self.aws.alone()?;
        let client = Client::from_conf(config.build());
        Ok(Some(Box::new(Alone::new(client, self.bucket.clone(), self.prefix.clone(), runtime))))
    }

    fn write(&self, key: &str, bytes: &[u8], condition: Condition<'_>, publisher: Option<&str>) -> Result<String> {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(key))
            .checksum_crc64_nvme(encoded(crc64(bytes)))
            .set_metadata(publisher.map(|p| [(PUBLISHER.to_owned(), ascii(p))].into()))
            .body(ByteStream::from(bytes.to_vec()));
        let request = match condition {
            Condition::Absent => request.if_none_match("*"),
            Condition::Is(etag) => request.if_match(etag),
        };
        let answer = self.aws.wait(request.send()).map_err(|e| classify("PutObject", &self.place(key), &e))?;
        Ok(answer.e_tag().unwrap_or_default().into())
    }

    fn remove(&self, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.key(key));
        match self.aws.wait(request.send()) {
            Ok(_) => Ok(()),
            Err(e) => match classify("DeleteObject", &self.place(key), &e) {
                e if e.cause == Cause::NotFound => Ok(()),
                e => Err(e),
            },
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Item)) -> Result<()> {
        let whole = self.key(prefix);
        let mut token = None;
        loop {
            let request = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&whole)
                .delimiter("/")
                .set_continuation_token(token);
            let place = self.place(prefix);
            let page = self.aws.wait(request.send()).map_err(|e| classify("ListObjectsV2", &place, &e))?;
            for object in page.contents() {
                let Some(name) = object.key().and_then(|k| k.strip_prefix(&whole)).filter(|n| !n.is_empty()) else {
                    continue;
                };
                let size = u64::try_from(object.size().unwrap_or_default()).unwrap_or_default();
                each(Item::Object { name: name.into(), size, modified: object.last_modified().and_then(seconds) });
            }
            for folder in page.common_prefixes() {
                let name = folder.prefix().and_then(|p| p.strip_prefix(&whole)).map(|p| p.trim_end_matches('/'));
                if let Some(name) = name {
                    each(Item::Folder(name.into()));
                }
            }
            token = page.next_continuation_token().map(str::to_owned);
            if token.is_none() || page.is_truncated() == Some(false) {
                return Ok(());
            }
        }
    }

    fn begin(&self, key: &str) -> Result<Upload> {
        let operation = "CreateMultipartUpload";
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(key))
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject);
        let answer = self.aws.wait(request.send()).map_err(|e| classify(operation, &self.place(key), &e))?;
        let id = answer.upload_id().unwrap_or_default().to_owned();
        if id.is_empty() {
            return Err(StoreError::new(operation, self.place(key), Cause::NotS3, "the answer has no upload id"));
        }
        Ok(Upload { key: key.into(), id, started: None })
    }

    fn send(&self, upload: &Upload, number: u32, _: u64, body: &Body<'_>) -> Result<Part> {
        let (size, crc) = (body.len(), body.crc());
        let send = |body: SdkBody| {
            let request = self
                .client
                .upload_part()
                .bucket(&self.bucket)
                .key(self.key(&upload.key))
                .upload_id(&upload.id)
                .part_number(i32::try_from(number).unwrap_or(i32::MAX))
                .checksum_crc64_nvme(encoded(crc))
                .content_length(i64::try_from(size).unwrap_or(i64::MAX))
                .body(ByteStream::new(body))
                .customize()
                .disable_payload_signing(); // the CRC and, end to end, the AEAD's tags cover it
            self.aws.wait(request.send()).map_err(|e| classify("UploadPart", &self.place(&upload.key), &e))
        };
        let mut patience = Patience::transfer();
        loop {
            let answer = match body.to_sdk() {
                Some(body) => send(body),
                None => pour(body, send)?,
            };
            match answer {
                Ok(answer) => {
                    return Ok(Part { number, size, etag: answer.e_tag().unwrap_or_default().into(), crc });
                }
                Err(e) if patience.again(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let (mut parts, mut marker) = (Vec::new(), None);
        loop {
            let request = self
                .client
                .list_parts()
                .bucket(&self.bucket)
                .key(self.key(&upload.key))
                .upload_id(&upload.id)
                .set_part_number_marker(marker);
            let place = self.place(&upload.key);
            let page = self.aws.wait(request.send()).map_err(|e| classify("ListParts", &place, &e))?;
            for part in page.parts() {
                let number = part.part_number().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
                let size = part.size().and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
                parts.push(Part { number, size, etag: part.e_tag().unwrap_or_default().into(), crc: 0 });
            }
            marker = page.next_part_number_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) || marker.is_none() {
                return Ok(parts);
            }
        }
    }

    fn complete(&self, upload: &Upload, parts: &[Part], whole: Whole) -> Result<()> {
        let operation = "CompleteMultipartUpload";
        let done = parts.iter().map(|p| {
            CompletedPart::builder()
                .part_number(i32::try_from(p.number).unwrap_or(i32::MAX))
                .e_tag(&p.etag)
                .checksum_crc64_nvme(encoded(p.crc))
                .build()
        });
        let list = CompletedMultipartUpload::builder().set_parts(Some(done.collect())).build();
        let mut patience = Patience::transfer();
        loop {
            let request = self
                .client
                .complete_multipart_upload()
                .bucket(&self.bucket)
                .key(self.key(&upload.key))
                .upload_id(&upload.id)
                .checksum_crc64_nvme(encoded(whole.crc))
                .checksum_type(ChecksumType::FullObject)
                .mpu_object_size(i64::try_from(whole.size).unwrap_or(i64::MAX))
                .if_none_match("*")
                .multipart_upload(list.clone());
            let Err(e) = self.aws.wait(request.send()) else { return Ok(()) };
            let e = classify(operation, &self.place(&upload.key), &e);
            // The answer to an earlier try may have been lost.
            let maybe_done = matches!(e.cause, Cause::NoSuchUpload | Cause::Precondition);
            if maybe_done && self.head(&upload.key).is_ok_and(|m| m.size == whole.size) {
                // Or an earlier push did it, and left no record: then this upload is one too many.
                if e.cause == Cause::Precondition {
                    let _ = self.abort(upload); // or `mvault gc` does
                }
                return Ok(());
            }
            // Parts that are not the whole will not be at the next try either.
            if e.cause == Cause::BadDigest || !patience.again(&e) {
                return Err(e);
            }
        }
    }

    fn abort(&self, upload: &Upload) -> Result<()> {
        let request =
            self.client.abort_multipart_upload().bucket(&self.bucket).key(self.key(&upload.key)).upload_id(&upload.id);
        match self.aws.wait(request.send()) {
            Ok(_) => Ok(()),
            Err(e) => match classify("AbortMultipartUpload", &self.place(&upload.key), &e) {
                e if matches!(e.cause, Cause::NoSuchUpload | Cause::NotFound) => Ok(()),
                e => Err(e),
            },
        }
    }

    fn uploads(&self, prefix: &str) -> Result<Vec<Upload>> {
        let (mut uploads, mut markers) = (Vec::new(), (None, None));
        loop {
            let request = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(self.key(prefix))
                .set_key_marker(markers.0)
                .set_upload_id_marker(markers.1);
            let place = self.place(prefix);
            let page = self.aws.wait(request.send()).map_err(|e| classify("ListMultipartUploads", &place, &e))?;
            for upload in page.uploads() {
                let key = upload.key().and_then(|k| k.strip_prefix(&self.prefix));
                if let (Some(key), Some(id)) = (key, upload.upload_id()) {
                    let started = upload.initiated().and_then(seconds);
                    uploads.push(Upload { key: key.into(), id: id.into(), started });
                }
            }
            markers = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            if page.is_truncated() != Some(true) || markers.0.is_none() {
                return Ok(uploads);
            }
        }
    }

    fn put(&self, key: &str, body: Bytes) -> Result<()> {
        let (size, crc) = (body.len(), crc64(&body));
        let mut patience = Patience::transfer();
        loop {
            let request = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(self.key(key))
                .checksum_crc64_nvme(encoded(crc))
                .if_none_match("*")
                .body(ByteStream::from(body.clone()))
                .customize()
                .disable_payload_signing();
            let Err(e) = self.aws.wait(request.send()) else { return Ok(()) };
            let e = classify("PutObject", &self.place(key), &e);
            if e.cause == Cause::Precondition && self.head(key).is_ok_and(|m| m.size == size as u64) {
                return Ok(()); // the answer to an earlier try was lost: the name is this artifact's own
            }
            if !patience.again(&e) {
                return Err(e);
            }
        }
    }
}

fn encoded(crc: u64) -> String {
    aws_smithy_types::base64::encode(crc.to_be_bytes())
}

/// What fits a header.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(128).collect()
}

fn seconds(time: &DateTime) -> Option<u64> {
    u64::try_from(time.secs()).ok()
}
