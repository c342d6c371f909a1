//! `mvault diff` of versions in S3: the report is that of the plain files, and what is read is verified.

use crate::bench::{Bench, asked};
use crate::models::{Model, TAMPERED};

#[test]
fn diff_of_versions_in_s3_differs_from_that_of_files() {
    let Some(bench) = Bench::new("drift") else { return };
    let mut models = vec![Model::new(1)];
    (2..=3).for_each(|seed| models.push(models[models.len() - 1].tuned(seed)));
    models.push(models[2].tuned(4).tampered());
    for (n, model) in models.iter().enumerate() {
        bench.shop.write(&format!("{n}/model.safetensors"), &model.file());
        bench.run(&format!("push {n} VAULT m")).ok();
    }
    let files = bench.run("diff 2 3 --against 0 --against 1 --json").ok().json();
    bench.proxy.clear_log();
    let listed = bench.run("diff VAULT/m:3 VAULT/m:4 --json").ok().json();
    let requests = bench.proxy.log();
    assert_eq!((&listed["tensors"], &listed["entries"]), (&files["tensors"], &files["entries"]));
    assert_eq!((&listed["tensors"][0]["name"], listed["earlier_steps"].as_u64()), (&TAMPERED.into(), Some(2)));
    assert!(asked(&requests, "GetObject") < 60, "{} requests", asked(&requests, "GetObject"));
    let by_name = bench.run("diff --vault VAULT m:3 m --json").ok().json();
    assert_eq!(by_name["tensors"], files["tensors"]);
    bench.run("diff VAULT/m:3 VAULT/m:9").fails(5, "B: ");
    // Bytes of the later one are changed where they are stored.
    let payloads = bench.run("inspect VAULT/m:4 --json").ok().json();
    let path = bench.path(&format!("m/payloads/{}", payloads["id"].as_str().unwrap()));
    let mut bytes = bench.server.curl("GET", &path, &[], b"").body;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert_eq!(bench.server.curl("PUT", &path, &[], &bytes).status, 200);
    bench.run("diff VAULT/m:3 VAULT/m:4").fails(3, "B: m:4 in s3://");
}
