//! One connection: each request is answered by method and sub-resource.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufReader};
use std::net::TcpStream;
use std::sync::Arc;

use crate::answer::Answer;
use crate::body::{self, Body};
use crate::objects::{Fields, Object, Part, State, Upload};
use crate::request::Request;

/// Bytes read at once: a body is passed in pieces of this size.
const BUFFER: usize = 256 << 10;

/// Serves a client until it goes away.
pub fn connection(stream: &TcpStream, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (BufReader::with_capacity(BUFFER, stream), stream);
    while let Some(request) = Request::read(&mut input)? {
        let body = body::read(&request, &mut input, &mut output, state.keeps(&request.key))?;
        let mut answer = respond(&request, body, state);
        answer.bodiless = request.method == "HEAD";
        answer.send(&mut output)?;
    }
    Ok(())
}

fn respond(request: &Request, body: Body, state: &State) -> Answer {
    let (upload, tagging) = (request.query("uploadId"), request.query("tagging").is_some());
    match (request.method.as_str(), upload) {
        _ if request.key.is_empty() => bucket(request, &body, state),
        ("GET", None) if tagging => tags(request, state),
        ("PUT", None) if tagging => set_tags(request, body, state),
        ("DELETE", None) if tagging => remove_tags(request, state),
        ("GET" | "HEAD", None) => get(request, state),
        ("PUT", None) => put(request, body, state),
        ("DELETE", None) => remove(&name(request), state),
        ("POST", None) if request.query("uploads").is_some() => create(request, state),
        ("PUT", Some(id)) => put_part(request, id, body, state),
        ("POST", Some(id)) => complete(request, id, &body, state),
        ("GET", Some(id)) => list_parts(request, id, state),
        ("DELETE", Some(id)) => {
            state.contents().uploads.remove(id);
            Answer::empty(204)
        }
        _ => Answer::error(501, "NotImplemented"),
    }
}

fn name(request: &Request) -> String {
    format!("{}/{}", request.bucket, request.key)
}

/// The checksums a body came with, before or after it. The AEAD's users compare them with their own.
fn checksums(request: &Request, body: &Body) -> Fields {
    let is_value = |(name, _): &(String, String)| {
        !name.ends_with("-algorithm") && !name.ends_with("-type") && !name.ends_with("-mode")
    };
    let trailers = body.trailers.iter().filter(|(name, _)| name.starts_with("x-amz-checksum-")).cloned();
    request.headers("x-amz-checksum-").filter(is_value).chain(trailers).collect()
}

fn bucket(request: &Request, body: &Body, state: &State) -> Answer {
    match request.method.as_str() {
        "GET" if request.query("uploads").is_some() => uploads(request, state),
        "GET" if request.query("location").is_some() => Answer::xml("<LocationConstraint/>"),
        "GET" if request.query("versioning").is_some() => Answer::xml("<VersioningConfiguration/>"),
        "GET" if request.query("object-lock").is_some() => Answer::error(404, "ObjectLockConfigurationNotFoundError"),
        "GET" => list(request, state),
        "POST" if request.query("delete").is_some() => {
            let text = String::from_utf8_lossy(body.bytes.as_deref().unwrap_or_default()).into_owned();
            for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
                remove(&format!("{}/{key}", request.bucket), state);
            }
            Answer::xml("<DeleteResult/>")
        }
        "DELETE" => Answer::empty(204),
        _ => Answer::empty(200),
    }
}

fn list(request: &Request, state: &State) -> Answer {
    let bucket = format!("{}/", request.bucket);
    let prefix = request.query("prefix").unwrap_or_default();
    let delimiter = request.query("delimiter").filter(|text| !text.is_empty());
    let (mut items, mut folders) = (String::new(), Vec::new());
    for (name, object) in &state.contents().objects {
        let Some(key) = name.strip_prefix(&bucket).filter(|key| key.starts_with(prefix)) else { continue };
        let rest = key.get(prefix.len()..).unwrap_or_default();
        if let Some((folder, _)) = delimiter.and_then(|mark| rest.split_once(mark)) {
            folders.push(format!("{prefix}{folder}{}", delimiter.unwrap_or_default()));
            continue;
        }
        let (etag, len, key) = (&object.etag, object.len, escape(key));
        let _ = write!(
            items,
            "<Contents><Key>{key}</Key><LastModified>{TIME}</LastModified><ETag>{etag}</ETag><Size>{len}</Size></Contents>"
        );
    }
    folders.dedup();
    for folder in folders {
        let _ = write!(items, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(&folder));
    }
    Answer::xml(&format!("<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"))
}

fn uploads(request: &Request, state: &State) -> Answer {
    let prefix = format!("{}/{}", request.bucket, request.query("prefix").unwrap_or_default());
    let mut items = String::new();
    for (id, upload) in state.contents().uploads.iter().filter(|(_, upload)| upload.object.starts_with(&prefix)) {
        let key = escape(upload.object.split_once('/').map_or("", |(_, key)| key));
        let _ =
            write!(items, "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{TIME}</Initiated></Upload>");
    }
    Answer::xml(&format!(
        "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{items}</ListMultipartUploadsResult>"
    ))
}

/// Whether the request's conditions on what is there now do not hold.
fn refused(request: &Request, there: Option<&Arc<Object>>) -> bool {
    let absent = request.header("if-none-match") == Some("*") && there.is_some();
    let same = |wanted: &str| there.is_some_and(|object| object.etag.trim_matches('"') == wanted.trim_matches('"'));
    absent || request.header("if-match").is_some_and(|wanted| !same(wanted))
}

fn put(request: &Request, body: Body, state: &State) -> Answer {
    let mut contents = state.contents();
    if refused(request, contents.objects.get(&name(request))) {
        return Answer::error(412, "PreconditionFailed");
    }
    let checksums = checksums(request, &body);
    let etag = contents.etag();
    let fields = request.headers("x-amz-meta-").chain(checksums.clone()).collect();
    let bytes = body.bytes.map(|bytes| vec![bytes]);
    let object = Object { len: body.len, etag: etag.clone(), bytes, fields };
    contents.objects.insert(name(request), Arc::new(object));
    Answer::empty(200).with("etag", etag).with_all(checksums)
}

fn get(request: &Request, state: &State) -> Answer {
    let Some(object) = state.contents().objects.get(&name(request)).cloned() else {
        return Answer::error(404, "NoSuchKey");
    };
    if refused(request, Some(&object)) {
        return Answer::error(412, "PreconditionFailed");
    }
    // What was dropped has a size and no bytes.
    if object.bytes.is_none() && request.method == "GET" {
        return Answer::error(404, "NoSuchKey");
    }
    let whole = object.len;
    let (status, from, len) = match request.range(whole) {
        Some((_, 0)) => return Answer::error(416, "InvalidRange"),
        Some((from, len)) => (206, from, len),
        None => (200, 0, whole),
    };
    // A checksum is that of the whole object.
    let asked = request.header("x-amz-checksum-mode").is_some() && status == 200;
    let fields: Fields =
        object.fields.iter().filter(|(name, _)| asked || !name.starts_with("x-amz-checksum-")).cloned().collect();
    let etag = object.etag.clone();
    let answer = Answer::bytes(status, object, from, len).with_all(fields);
    let answer = answer.with("etag", etag).with("last-modified", HTTP_TIME).with("accept-ranges", "bytes");
    if status == 206 {
        answer.with("content-range", format!("bytes {from}-{}/{whole}", from + len - 1))
    } else {
        answer
    }
}

fn remove(name: &str, state: &State) -> Answer {
    let mut contents = state.contents();
    contents.objects.remove(name);
    contents.tags.remove(name);
    Answer::empty(204)
}

fn tags(request: &Request, state: &State) -> Answer {
    let contents = state.contents();
    let kept = contents.tags.get(&name(request)).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    kept.map_or_else(|| Answer::xml("<Tagging><TagSet/></Tagging>"), |text| Answer::xml(&text))
}

fn set_tags(request: &Request, body: Body, state: &State) -> Answer {
    state.contents().tags.insert(name(request), body.bytes.unwrap_or_default());
    Answer::empty(200)
}

fn remove_tags(request: &Request, state: &State) -> Answer {
    state.contents().tags.remove(&name(request));
    Answer::empty(204)
}

fn create(request: &Request, state: &State) -> Answer {
    let mut contents = state.contents();
    let id = contents.etag().trim_matches('"').to_owned();
    let fields = request.headers("x-amz-meta-").collect();
    contents.uploads.insert(id.clone(), Upload { object: name(request), fields, parts: BTreeMap::new() });
    let (bucket, key) = (escape(&request.bucket), escape(&request.key));
    let answer = Answer::xml(&format!(
        "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
    ));
    answer.with_all(request.headers("x-amz-checksum-"))
}

fn put_part(request: &Request, id: &str, body: Body, state: &State) -> Answer {
    if request.header("x-amz-copy-source").is_some() {
        return Answer::error(501, "NotImplemented");
    }
    let mut contents = state.contents();
    let etag = contents.etag();
    let number = request.query("partNumber").and_then(|text| text.parse().ok());
    let (Some(number), Some(upload)) = (number, contents.uploads.get_mut(id)) else {
        return Answer::error(404, "NoSuchUpload");
    };
    let checksums = checksums(request, &body);
    upload.parts.insert(number, Part::new(body, etag.clone(), checksums.clone()));
    Answer::empty(200).with("etag", etag).with_all(checksums)
}

fn list_parts(request: &Request, id: &str, state: &State) -> Answer {
    let contents = state.contents();
    let Some(upload) = contents.uploads.get(id) else { return Answer::error(404, "NoSuchUpload") };
    let after: u32 = request.query("part-number-marker").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut items = String::new();
    for (number, part) in upload.parts.iter().filter(|(number, _)| **number > after) {
        let (len, etag) = (part.len, &part.etag);
        let _ = write!(items, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><Size>{len}</Size>");
        items = items + &elements(&part.checksums) + "</Part>";
    }
    Answer::xml(&format!("<ListPartsResult><IsTruncated>false</IsTruncated>{items}</ListPartsResult>"))
}

fn complete(request: &Request, id: &str, body: &Body, state: &State) -> Answer {
    let mut contents = state.contents();
    if refused(request, contents.objects.get(&name(request))) {
        return Answer::error(412, "PreconditionFailed");
    }
    let checksums = checksums(request, body);
    let Some(object) = contents.complete(id, checksums.clone()) else { return Answer::error(404, "NoSuchUpload") };
    let (bucket, key, etag) = (escape(&request.bucket), escape(&request.key), &object.etag);
    let items = elements(&checksums);
    Answer::xml(&format!(
        "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>{etag}</ETag>{items}</CompleteMultipartUploadResult>"
    ))
}

/// Checksums as a document has them: x-amz-checksum-crc64nvme is ChecksumCRC64NVME there.
fn elements(checksums: &Fields) -> String {
    let element = |(name, value): &(String, String)| {
        let element = format!("Checksum{}", name.trim_start_matches("x-amz-checksum-").to_uppercase());
        format!("<{element}>{value}</{element}>")
    };
    checksums.iter().map(element).collect()
}

/// Every object has this age: nothing here depends on it.
const TIME: &str = "2026-01-01T00:00:00.000Z";
const HTTP_TIME: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
