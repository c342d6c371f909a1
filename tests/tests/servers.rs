//! What the other tests rely on in the servers they talk to: that each starts, and what each can do.
//!
//! Not a test of ours but of the ground under it. Where a server falls short the test's name says so, so that no
//! test of ours is built on it.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

use mvault_tests::noise;
use mvault_tests::server::{Keys, READ_ONLY_BUCKET, Server};
use std::fs;
use std::process::Command;
use std::thread;

const PART: usize = 5 << 20;

fn objects_come_back(server: &Server) {
    server.create_bucket("objects");
    let data = noise(1, 100_000);
    let put = server.curl("PUT", "/objects/a key/with spaces", &[("x-amz-meta-who", "us")], &data);
    assert_eq!(put.status, 200, "{put:?}");
    assert!(put.header("etag").is_some(), "{put:?}");
    let got = server.curl("GET", "/objects/a key/with spaces", &[], b"");
    assert!(got.status == 200 && got.body == data, "{got:?}");
    assert_eq!(got.header("x-amz-meta-who"), Some("us"));
    let range = server.curl("GET", "/objects/a key/with spaces", &[("Range", "bytes=70000-70009")], b"");
    assert_eq!((range.status, &range.body[..]), (206, &data[70_000..70_010]));
    assert_eq!(range.header("content-range"), Some("bytes 70000-70009/100000"));
    let head = server.curl("HEAD", "/objects/a key/with spaces", &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("100000")));
    assert_eq!(server.list("objects", "a key/"), ["a key/with spaces"]);
    assert_eq!(server.curl("DELETE", "/objects/a key/with spaces", &[], b"").status, 204);
    assert_eq!(server.curl("GET", "/objects/a key/with spaces", &[], b"").status, 404);
}

fn a_second_conditional_put_is_refused(server: &Server) {
    server.create_bucket("conditional");
    let put = |body| server.curl("PUT", "/conditional/once", &[("If-None-Match", "*")], body);
    assert_eq!(put(b"first").status, 200);
    assert_eq!(put(b"second").status, 412);
    assert_eq!(server.curl("GET", "/conditional/once", &[], b"").body, b"first");
}

/// How many of eight writers at the same time are told that they were the first.
fn winners(server: &Server) -> usize {
    server.create_bucket("racing");
    let write = |writer: u8| server.curl("PUT", "/racing/once", &[("If-None-Match", "*")], &[writer; 9]).status == 200;
    let won: Vec<bool> = thread::scope(|scope| {
        let writers: Vec<_> = (0..8).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let body = server.curl("GET", "/racing/once", &[], b"").body;
    assert!(won[usize::from(body[0])], "what is stored was refused");
    won.into_iter().filter(|won| *won).count()
}

fn begin(server: &Server, key: &str) -> String {
    let begun = server.curl("POST", &format!("/parts/{key}?uploads"), &[], b"");
    assert_eq!(begun.status, 200, "{begun:?}");
    begun.all("UploadId").remove(0)
}

fn part(server: &Server, key: &str, upload: &str, number: usize, data: &[u8]) -> String {
    let put = server.curl("PUT", &format!("/parts/{key}?partNumber={number}&uploadId={upload}"), &[], data);
    assert_eq!(put.status, 200, "{put:?}");
    put.header("etag").unwrap().to_owned()
}

fn uploads_of_many_parts(server: &Server) {
    server.create_bucket("parts");
    let (first, second) = (noise(2, PART), noise(3, 1234));
    let upload = begin(server, "whole");
    let etags = [part(server, "whole", &upload, 1, &first), part(server, "whole", &upload, 2, &second)];

    let of_upload = format!("/parts/whole?uploadId={upload}");
    let listed = server.curl("GET", &of_upload, &[], b"");
    assert_eq!(listed.all("PartNumber"), ["1", "2"], "{listed:?}");
    assert_eq!(listed.all("Size"), [PART.to_string(), "1234".into()], "{listed:?}");
    assert_eq!(server.curl("GET", "/parts/whole", &[], b"").status, 404, "there before it is complete");

    let parts: String = (1..).zip(&etags).fold(String::new(), |all, (number, etag)| {
        all + &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    });
    let xml = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let completed = server.curl("POST", &of_upload, &[], xml.as_bytes());
    assert_eq!(completed.status, 200, "{completed:?}");
    assert!(server.curl("GET", "/parts/whole", &[], b"").body == [first, second].concat(), "not its parts");
}

fn an_aborted_upload_is_gone(server: &Server) {
    server.create_bucket("parts");
    let upload = begin(server, "aborted");
    part(server, "aborted", &upload, 1, b"some");
    let uploads = || server.curl("GET", "/parts?uploads", &[], b"").all("UploadId");
    assert!(uploads().contains(&upload), "{:?}", uploads());
    let of_upload = format!("/parts/aborted?uploadId={upload}");
    assert_eq!(server.curl("DELETE", &of_upload, &[], b"").status, 204);
    assert_eq!(server.curl("GET", &of_upload, &[], b"").status, 404);
    assert!(!uploads().contains(&upload), "{:?}", uploads());
}

/// Whether what was stored is there after a restart.
fn survives(server: &Server, restart: impl Fn()) -> bool {
    server.create_bucket("kept");
    let data = noise(4, 300_000);
    assert_eq!(server.curl("PUT", "/kept/object", &[], &data).status, 200);
    let endpoint = server.endpoint();
    restart();
    assert_eq!(server.endpoint(), endpoint, "clients would have to be told");
    server.curl("GET", "/kept/object", &[], b"").body == data
}

fn all_of_s3(server: &Server) {
    objects_come_back(server);
    a_second_conditional_put_is_refused(server);
    uploads_of_many_parts(server);
    an_aborted_upload_is_gone(server);
}

#[test]
fn seaweed_does_all_and_lets_one_writer_win() {
    let Some(server) = Server::shared() else { return };
    all_of_s3(server);
    assert_eq!(winners(server), 1);
}

#[test]
fn seaweed_answers_as_aws_where_it_can_be_told_to() {
    let Some(server) = Server::shared() else { return };
    server.create_bucket("as-aws");
    let nowhere = server.curl("PUT", "/never-made/object", &[], b"data");
    assert_eq!((nowhere.status, nowhere.all("Code")), (404, vec!["NoSuchBucket".to_owned()]));
    let encrypted = server.curl("PUT", "/as-aws/object", &[("x-amz-server-side-encryption", "AES256")], b"data");
    assert_eq!((encrypted.status, encrypted.header("x-amz-server-side-encryption")), (200, Some("AES256")));
    assert_eq!(server.curl("GET", "/as-aws/object", &[], b"").body, b"data");
    let other = [("x-amz-checksum-crc32c", "AAAAAA==")];
    let damaged = server.curl("PUT", "/as-aws/damaged", &other, b"not of that checksum");
    assert_eq!(damaged.status, 400, "{damaged:?}");
}

#[test]
fn seaweed_refuses_who_may_not() {
    let Some(server) = Server::shared() else { return };
    server.create_bucket(READ_ONLY_BUCKET);
    let (object, elsewhere) = (format!("/{READ_ONLY_BUCKET}/object"), "/mine/object");
    server.create_bucket("mine");
    for path in [&object, elsewhere] {
        assert_eq!(server.curl("PUT", path, &[], b"data").status, 200);
    }
    let status =
        |keys: &Keys, method: &str, path: &str| server.try_curl_as(keys, method, path, &[], b"").unwrap().status;
    let reader = server.reader();
    assert_eq!(status(reader, "GET", &object), 200);
    assert_eq!(status(reader, "GET", &format!("/{READ_ONLY_BUCKET}?list-type=2")), 200);
    assert_eq!(status(reader, "PUT", &object), 403);
    assert_eq!(status(reader, "DELETE", &object), 403);
    assert_eq!(status(reader, "GET", elsewhere), 403);
    let wrong = Keys::new(server.access_key(), "not-the-secret");
    assert_eq!(status(&wrong, "GET", &object), 403);
    assert_eq!(status(&Keys::new("NOBODY", "nothing"), "GET", &object), 403);
}

#[test]
fn seaweed_keeps_data_over_restart_and_kill() {
    let Some(server) = Server::seaweed() else { return };
    assert!(survives(&server, || server.restart()));
    server.stop();
    assert!(server.try_curl_as(server.keys(), "GET", "/kept/object", &[], b"").is_err(), "answers when stopped");
    server.restart();
    let killed = || {
        server.kill();
        server.restart();
    };
    assert!(survives(&server, killed));
}

#[test]
fn seaweed_speaks_tls_with_our_authority_only() {
    let Some(server) = Server::seaweed_tls() else { return };
    assert!(server.endpoint().starts_with("https://127.0.0.1:"));
    objects_come_back(&server);
    let url = format!("{}/objects", server.endpoint());
    let stranger = Command::new("curl").args(["-q", "-sS", "--noproxy", "*", &url]).output().unwrap();
    assert_eq!(stranger.status.code(), Some(60), "a certificate of nobody's was trusted: {stranger:?}");
}

#[test]
fn moto_does_all_but_keep() {
    let Some(server) = Server::moto() else { return };
    all_of_s3(&server);
    server.restart();
    assert_eq!(server.curl("GET", "/objects", &[], b"").status, 404, "moto keeps data: use it");
}

#[test]
fn ministack_does_all_and_keeps_it() {
    let Some(server) = Server::ministack() else { return };
    all_of_s3(&server);
    assert_eq!(winners(&server), 1);
    assert!(survives(&server, || server.restart()));
}

/// Encrypts and decrypts under a new key, and not under another context.
fn kms_wraps_and_unwraps(server: &Server) {
    let field = |json: &str, name: &str| {
        let rest = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}")).1;
        rest.trim_start().trim_start_matches('"').split('"').next().unwrap().to_owned()
    };
    let made = server.kms("CreateKey", "{}");
    assert_eq!(made.status, 200, "{made:?}");
    let key = field(&made.text(), "KeyId");
    let context = r#""EncryptionContext":{"use":"test"}"#;
    let wrapped = server.kms("Encrypt", &format!(r#"{{"KeyId":"{key}","Plaintext":"c2VjcmV0",{context}}}"#));
    let blob = field(&wrapped.text(), "CiphertextBlob");
    let back = server.kms("Decrypt", &format!(r#"{{"CiphertextBlob":"{blob}",{context}}}"#));
    assert_eq!(field(&back.text(), "Plaintext"), "c2VjcmV0");
    let other = server.kms("Decrypt", &format!(r#"{{"CiphertextBlob":"{blob}"}}"#));
    assert_eq!(other.status, 400, "another context was accepted: {other:?}");
}

#[test]
fn moto_has_kms() {
    let Some(server) = Server::moto() else { return };
    kms_wraps_and_unwraps(&server);
}

#[test]
fn localstack_has_kms() {
    let Some(server) = Server::localstack() else { return };
    kms_wraps_and_unwraps(&server);
}

#[test]
fn a_dropped_server_leaves_nothing() {
    let Some(server) = Server::moto() else { return };
    let pid = server.pid().unwrap();
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert!(folder.is_dir());
    drop(server);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "still running");
    assert!(!folder.exists(), "still there: {}", folder.display());
}
