//! Every way into a vault and out of it, in S3 and in a folder: what comes out is what went in.

use crate::bench::Bench;
use crate::common::Done;
use std::fs::File;
use std::path::Path;

/// The same bytes in the same files.
#[track_caller]
fn same(bench: &Bench<'_>, a: &str, b: &str) {
    for name in ["config.json", "model.safetensors"] {
        assert_eq!(bench.shop.read(&format!("{a}/{name}")), bench.shop.read(&format!("{b}/{name}")));
    }
}

/// As somebody who has no key.
fn keyless(bench: &Bench<'_>, args: &str) -> Done {
    bench.command(args).env("HOME", bench.shop.path("home-of-nobody")).output().unwrap().into()
}

#[test]
fn model_changes_on_the_way() {
    let Some(bench) = Bench::new("round-trip") else { return };
    let piped = bench.noise("piped.bin", 61, 40_000_000);
    for (vault, out) in [("VAULT", "s3"), ("local", "folder")] {
        let run = |args: &str| bench.run(&args.replace("IN", vault).replace("OUT", out)).ok();
        run("push bert IN bert --tag prod");
        run("pull IN bert -o OUT/bert");
        run("pull IN bert:1 -o OUT/by-version");
        run("pull IN bert@prod -o OUT/by-tag --min-version 1");
        for folder in ["bert", "by-version", "by-tag"] {
            same(&bench, "bert", &format!("{out}/{folder}"));
        }
        run("push model.pkl IN pickle");
        run("pull IN pickle -o OUT");
        assert_eq!(bench.shop.read(&format!("{out}/model.pkl")), bench.shop.read("model.pkl"));
        // Of a length that nobody knows.
        let mut push = bench.command(&format!("push - {vault} piped"));
        let done: Done = push.stdin(File::open(bench.shop.path("piped.bin")).unwrap()).output().unwrap().into();
        done.ok();
        run("pull IN piped -o OUT");
        assert!(bench.shop.read(&format!("{out}/piped")) == piped);

        run("push model.pkl IN bert");
        assert_eq!(run("ls IN bert --json").json()["count"], 2);
        assert_eq!(run("ls IN bert -n 1 --json").json()["versions"][0]["version"], 2);
        let models = run("ls IN --json").json();
        assert_eq!((models["models"].as_array().unwrap().len(), &models["models"][0]["tags"]["prod"]), (3, &1.into()));
        run("tag IN bert:2 prod");
        run("rm IN bert:1 --yes");
        bench.run(&format!("pull {vault} bert:1 -o gone")).fails(5, "bert/1");
        run("pull IN bert@prod -o OUT/second");
        assert!(run("gc IN --older-than 0s").text().contains("nothing to remove"));
    }
    assert!(
        bench.objects().iter().all(|o| o.starts_with("bert/") || o.starts_with("pickle/") || o.starts_with("piped/"))
    );
    assert_eq!((bench.uploads(), bench.records()), (vec![], 0));
}

#[test]
fn sealed_file_changes_on_the_way() {
    let Some(bench) = Bench::new("sealed-files") else { return };
    bench.run("keygen --signing -o sign.pem").ok();
    bench.noise("m.bin", 62, 40_000_000);
    bench.run("seal m.bin --name m --model-version 9").ok();
    bench.run("seal m.bin --name m --model-version 9 --sign sign.pem -o signed.mvault").ok();
    for vault in ["VAULT", "local"] {
        // Without a key its version must be said, and nothing else can be seen to be wrong.
        keyless(&bench, &format!("push m.bin.mvault {vault} m")).fails(2, "say it with --model-version");
        keyless(&bench, &format!("push m.bin.mvault {vault} m --model-version 9")).ok();
        keyless(&bench, &format!("pull {vault} m --sealed -f")).ok();
        assert!(bench.shop.read("m.mvault") == bench.shop.read("m.bin.mvault"), "not the file that was sealed");
        bench.run("open m.mvault -o opened -f").ok();
        assert!(bench.shop.read("opened/m") == bench.shop.read("m.bin"));
        // With one, and with a signature, it can.
        bench.run(&format!("push m.bin.mvault {vault} m --model-version 8")).fails(2, "it is m version 9 [F-42]");
        bench.run(&format!("push m.bin.mvault {vault} other")).fails(2, "it is m version 9 [F-42]");
        keyless(&bench, &format!("push signed.mvault {vault} m --model-version 8")).fails(2, "[F-42]");
        keyless(&bench, &format!("push signed.mvault {vault} other --model-version 9")).fails(2, "[F-42]");
        keyless(&bench, &format!("push signed.mvault {vault} signed --model-version 9")).fails(2, "[F-42]");
        // What nobody could see when it was published is seen when it is pulled.
        keyless(&bench, &format!("push m.bin.mvault {vault} m --model-version 7")).ok();
        bench.run(&format!("pull {vault} m:7 -o never")).fails(3, "[F-42]");
    }
    assert_eq!((bench.uploads(), bench.objects().len()), (vec![], 3), "a payload that was there is sent twice");
    let hidden = std::fs::read_dir(bench.shop.path("local/m/payloads")).unwrap().map(|i| i.unwrap().file_name());
    assert_eq!(hidden.count(), 1);
    // A cut file is not published.
    let whole = bench.shop.read("m.bin.mvault");
    bench.shop.write("cut.mvault", &whole[..2_000]);
    keyless(&bench, "push cut.mvault VAULT m --model-version 3").fails(3, "[F-");
    assert!(!bench.objects().contains(&"m/3".to_owned()));
}

#[test]
fn default_vault_is_another() {
    let Some(bench) = Bench::new("default-vault") else { return };
    bench.run("push bert one").fails(2, "in which vault?");
    bench.shop.write("mvault.toml", format!("vault = \"{}\"\n", bench.uri()).as_bytes());
    bench.run("push bert one").ok();
    bench.run("push model.pkl two --vault local").ok();
    assert!(bench.objects().contains(&"one/1".to_owned()) && bench.shop.exists("local/two/1"));
    bench.run("pull one -o out").ok();
    same(&bench, "bert", "out");
    bench.run("tag one:1 prod").ok();
    assert_eq!(bench.run("ls --json").ok().json()["models"][0]["tags"]["prod"], 1);
    assert_eq!(bench.run("ls --vault local --json").ok().json()["models"][0]["name"], "two");
    bench.run("rm --vault local two:1 --yes").ok();
    bench.run("gc").ok();
}

/// Copies of one header stand for versions: a listing has no key, and opens nothing.
#[track_caller]
fn lists(bench: &Bench<'_>, vault: &str, last: u64) {
    let few = bench.run(&format!("ls {vault} m -n 3 --json")).ok().json();
    let shown: Vec<_> = few["versions"].as_array().unwrap().iter().map(|v| v["version"].as_u64().unwrap()).collect();
    assert_eq!((few["count"].as_u64(), shown), (Some(last), vec![last, last - 1, last - 2]));
    let all = bench.run(&format!("ls {vault} m --json")).ok().json();
    assert_eq!(all["versions"].as_array().unwrap().len() as u64, last);
    assert_eq!(bench.run(&format!("ls {vault} --json")).ok().json()["models"][0]["versions"], last);
    bench.run(&format!("push model.pkl {vault} m")).ok();
    assert_eq!(bench.run(&format!("ls {vault} m -n 1 --json")).ok().json()["versions"][0]["version"], last + 1);
}

#[test]
fn versions_past_the_first_page_are_lost() {
    let Some(bench) = Bench::new("many") else { return };
    for vault in ["VAULT", "local"] {
        bench.run(&format!("push model.pkl {vault} m")).ok();
    }
    let header = bench.shop.path("local/m/1");
    (2..=10_050).for_each(|n| std::fs::hard_link(&header, header.with_file_name(format!("{n}"))).unwrap());
    lists(&bench, "local", 10_050);

    let header = bench.server.curl("GET", &bench.path("m/1"), &[], b"").body;
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (bench, header) = (&bench, &header);
            scope.spawn(move || {
                for n in (2 + first..=1_050).step_by(4) {
                    let put = bench.server.curl("PUT", &bench.path(&format!("m/{n}")), &[], header);
                    assert_eq!(put.status, 200, "{put:?}");
                }
            });
        }
    });
    bench.proxy.clear_log();
    lists(&bench, "VAULT", 1_050);
    assert!(bench.proxy.counts().of("ListObjectsV2") >= 8, "{:?}", bench.proxy.counts());
    assert!(Path::new(&bench.shop.path("local")).exists());
}
