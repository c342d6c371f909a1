//! One suite for every store: memory, a folder, SeaweedFS (over http and TLS), MiniStack and moto, each case on each.
//! Where a server itself falls short of S3, the case is left out for it here, with the reason.

#![allow(clippy::unwrap_used, missing_docs)] // tests: a panic is the report

#[path = "store/objects.rs"]
mod objects;
#[path = "store/pointers.rs"]
mod pointers;
#[path = "store/recording.rs"]
mod recording;
#[path = "store/resuming.rs"]
mod resuming;
#[path = "store/transfers.rs"]
mod transfers;
#[path = "store/vaults.rs"]
mod vaults;

use aws_config::Region;
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use mvault_tests::noise;
use mvault_tests::server::Server;
use std::io::Write;
use vault_store::Store;
use vault_store::aws::{Aws, AwsOptions};
use vault_store::folder::Folder;
use vault_store::memory::Memory;
use vault_store::s3::S3;

/// A case: gets an empty vault.
type Case = (&'static str, fn(&dyn Store));

macro_rules! cases {
    ($($module:ident: $($name:ident),+;)+) => { &[$($((stringify!($name), $module::$name)),+),+] };
}

const CASES: &[Case] = cases! {
    objects: what_was_written_is_read, absent_means_absent_for_one_of_many, stale_etag_is_refused,
        ranges_end_with_the_object, fronts_end_with_the_object, lists_name_objects_and_folders,
        parts_in_any_order_make_the_whole, aborted_upload_is_gone, unfinished_uploads_are_listed, wrong_whole_is_refused,
        removing_nothing_is_no_error;
    transfers: every_size_comes_back, parts_made_again_come_back, piped_models_come_back, folders_come_back, sealed_files_are_pushed_without_a_key,
        parts_are_read_alone, failed_seal_publishes_nothing;
    vaults: two_publishers_never_mix, next_version_is_free, tags_move, tag_of_a_version_made_anew_is_refused,
        stale_header_is_not_replaced, garbage_is_old_and_unnamed, pages_of_versions;
    resuming: interrupted_push_goes_on, changed_source_begins_anew, completed_payload_is_not_sent_again,
        foreign_part_begins_anew, damaged_record_is_passed_over, large_parts_go_on,
        source_changed_between_sealing_and_sending;
};

fn run(open: &dyn Fn(&str) -> Box<dyn Store>, leave_out: &[&str]) {
    for (name, case) in CASES.iter().filter(|(name, _)| !leave_out.contains(name)) {
        let began = std::time::Instant::now();
        case(&*open(name));
        let _ = writeln!(std::io::stdout(), "{name}: {:.1} s", began.elapsed().as_secs_f64());
    }
}

fn on_server(server: Option<Server>, leave_out: &[&str]) {
    let Some(server) = server else { return };
    server.create_bucket("vaults");
    let aws = connect(&server);
    run(&|name| Box::new(S3::new(aws.clone(), "vaults", &format!("suite/{name}"))), leave_out);
}

fn connect(server: &Server) -> Aws {
    let options = AwsOptions { ca_bundle: server.ca().map(ToOwned::to_owned), ..AwsOptions::default() };
    let keys = Credentials::new(server.access_key(), server.secret_key(), None, None, "test");
    let config = aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.endpoint())
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .build();
    Aws::with_config(config, &options).unwrap()
}

#[test]
fn memory_keeps_the_promises() {
    run(&|_| Box::new(Memory::new()), &[]);
}

/// More parts than there may be in flight: the sealing waits for room that nobody makes.
#[test]
fn broken_sender_leaves_the_push_waiting() {
    let (tell, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (memory, data) = (Memory::new(), noise(1, 200 << 20));
        let mut store = recording::Recording::new(&memory);
        store.panics = true;
        let push = || transfers::Case::new(&store, "m").push(&[("weights.bin", &data)]).map(drop);
        tell.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(push)).is_err())
    });
    assert_eq!(hear.recv_timeout(std::time::Duration::from_mins(1)), Ok(true));
}

#[test]
fn folder_keeps_the_promises() {
    let root = tempfile::tempdir().unwrap();
    run(&|name| Box::new(Folder::new(root.path().join(name))), &[]);
}

#[test]
fn seaweedfs_keeps_the_promises() {
    on_server(Server::seaweed(), &[]);
}

#[test]
fn seaweedfs_over_tls_keeps_the_promises() {
    on_server(Server::seaweed_tls(), &["pages_of_versions"]); // for its time
}

/// What makes an object of several parts.
const MULTIPART: [&str; 11] = [
    "parts_in_any_order_make_the_whole",
    "every_size_comes_back",
    "parts_made_again_come_back",
    "piped_models_come_back",
    "sealed_files_are_pushed_without_a_key",
    "interrupted_push_goes_on",
    "changed_source_begins_anew",
    "completed_payload_is_not_sent_again",
    "foreign_part_begins_anew",
    "damaged_record_is_passed_over",
    "large_parts_go_on",
];

/// MiniStack 1.5 computes another CRC-64/NVME of a whole than SeaweedFS, LocalStack and we do, and refuses ours.
#[test]
fn ministack_keeps_the_promises() {
    on_server(Server::ministack(), &[&MULTIPART[..], &["pages_of_versions"]].concat());
}

#[test]
fn localstack_keeps_the_promises() {
    on_server(Server::localstack(), &["pages_of_versions"]);
}

/// moto 5.2 lists parts in a form that the SDK cannot read, and compares no checksum.
#[test]
fn moto_keeps_the_promises() {
    on_server(
        Server::moto(),
        &[&MULTIPART[..], &["pages_of_versions", "aborted_upload_is_gone", "wrong_whole_is_refused"]].concat(),
    );
}
