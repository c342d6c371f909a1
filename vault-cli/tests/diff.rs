//! What changed between two versions: what must stand out, and what must not be passed over. Each test is named after the defect
//! it would find. In S3 it is `vault/drift.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // tests: a panic is the report

mod common;
#[path = "diff/models.rs"]
mod models;

use common::{Done, Workshop};
use models::{Model, TAMPERED, f32s, noisy, real, safetensors};
use serde_json::Value;

fn workshop() -> Workshop {
    let shop = Workshop::new();
    shop.mvault("keygen").ok();
    shop
}

fn write(shop: &Workshop, folder: &str, file: &[u8]) {
    shop.write(&format!("{folder}/model.safetensors"), file);
    shop.write(&format!("{folder}/config.json"), b"{}\n");
}

/// A report of this pair, as JSON.
#[track_caller]
fn diff(shop: &Workshop, args: &str) -> Value {
    shop.mvault(&format!("diff {args} --json")).ok().json()
}

fn tensor<'v>(report: &'v Value, name: &str) -> &'v Value {
    report["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap()
}

/// The name of the tensor with the highest score, and that score.
fn first(report: &Value) -> (&str, f64) {
    let first = &report["tensors"][0];
    (first["name"].as_str().unwrap(), first["score"].as_f64().unwrap())
}

#[test]
fn tampered_layer_hides_among_fine_tuning() {
    let shop = workshop();
    let mut models = vec![Model::new(1)];
    (2..=5).for_each(|seed| models.push(models[models.len() - 1].tuned(seed)));
    for model in &models {
        write(&shop, "m", &model.file());
        shop.mvault("push m vault m").ok();
    }
    let next = models[4].tuned(9);
    write(&shop, "clean", &next.file());
    write(&shop, "bad", &next.tampered().file());
    shop.mvault("push bad vault m").ok();
    for (line, earlier) in
        [("--vault vault m:5 m:6", 4), ("--vault vault m:5 bad", 4), ("--vault vault m:1 m:6", 0), ("m bad", 0)]
    {
        let report = diff(&shop, line);
        let (name, score) = first(&report);
        assert!(name == TAMPERED && score > 4.0, "{line}: {name} {score}");
        assert_eq!(report["earlier_steps"].as_u64(), Some(earlier));
        assert!(report["tensors"][1]["score"].as_f64().unwrap() < 4.0, "{}", report["tensors"][1]);
        assert!((report["tensors"][0]["change"]["share"].as_f64().unwrap() - 1.0).abs() < 0.01);
    }
    assert!(first(&diff(&shop, "--vault vault m:5 clean")).1 < 4.0);
    let named = diff(&shop, "m bad --against clean --against m");
    assert_eq!(named["earlier_steps"], 2);
    let text = shop.mvault("diff --vault vault m:5 m:6").ok().text();
    assert!(
        text.contains("rest on this step and 4 earlier ones") && text.lines().all(|l| l.chars().count() <= 80),
        "{text}"
    );
    let shown = text.lines().position(|l| l.contains(TAMPERED)).unwrap();
    assert!(text.lines().nth(shown - 1).unwrap() == "score  tensor", "{text}");
    for (line, code) in
        [("m:5 m:6 --fail-above 4", 1), ("m:5 clean --fail-above 4", 0), ("m:5 m:6 --fail-above 100", 0)]
    {
        let done = shop.mvault(&format!("diff --vault vault {line} --json"));
        assert_eq!((done.code, &done.json()["ok"]), (code, &(code == 0).into()), "{line}: {}", done.stderr);
    }
    shop.mvault("diff --vault vault m:5 m:6 --fail-above 4").fails(1, &format!("{TAMPERED}: score "));
}

/// The numbers of one pair are the same, sealed or not, in a vault or not.
#[test]
fn sealed_and_plain_give_different_reports() {
    let shop = workshop();
    let model = Model::new(3);
    write(&shop, "a", &model.file());
    write(&shop, "b", &model.tuned(4).tampered().file());
    for side in ["a", "b"] {
        shop.mvault(&format!("seal {side}")).ok();
        shop.mvault(&format!("push {side} vault m")).ok();
    }
    let plain = diff(&shop, "a b");
    let of = |report: &Value| (report["entries"].clone(), report["tensors"].clone(), report["same"].clone());
    for line in ["a.mvault b.mvault", "a b.mvault", "a.mvault b", "--vault vault m:1 m:2", "--vault vault m:1 m"] {
        assert!(of(&diff(&shop, line)) == of(&plain), "{line}");
    }
    assert_eq!(plain["entries"][0]["status"], "same");
    let same = diff(&shop, "a a.mvault");
    assert!(same["same"] == true && same["highest_score"] == 0.0, "{same}");
    // Files alone are each other's counterpart, whatever they are called.
    shop.sh(
        "cp a/model.safetensors 1.safetensors && cp b/model.safetensors 2.safetensors && mvault seal 2.safetensors -q",
    )
    .ok();
    let files = diff(&shop, "1.safetensors 2.safetensors");
    assert_eq!(first(&files), first(&plain));
    assert_eq!(first(&diff(&shop, "1.safetensors 2.safetensors.mvault")), first(&plain));
}

#[test]
fn change_of_structure_is_passed_over() {
    let shop = workshop();
    let model = Model::new(1);
    let mut tensors = model.tensors();
    let half = [0, 0x3C].repeat(tensors[1].3.len() / 4);
    (tensors[1].1, tensors[1].3) = ("F16", half);
    tensors[2].2 = vec![2, tensors[2].2[0]];
    tensors.remove(3);
    tensors.push(("new".into(), "I64", vec![1], vec![0; 8]));
    shop.write("a.safetensors", &model.file());
    shop.write("b.safetensors", &safetensors(&tensors, ""));
    let report = diff(&shop, "a.safetensors b.safetensors");
    let status = |name: &str| tensor(&report, name)["status"].as_str().unwrap().to_owned();
    let names: Vec<_> = model.0.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        [names[1], names[2], names[3], "new", names[4]].map(status),
        ["type", "shape", "removed", "added", "same"]
    );
    assert!(tensor(&report, names[1])["b"]["norm"].is_number() && tensor(&report, names[1])["score"].is_null());
    let text = shop.mvault("diff a.safetensors b.safetensors").ok().text();
    assert!(
        text.contains("F32 2048 x 2") && text.contains("F16 2048 x 2") && text.contains("1 of another shape"),
        "{text}"
    );
    // Whoever gates by score must not be passed by what has none.
    shop.mvault("diff a.safetensors b.safetensors --fail-above 99").fails(1, "cannot be scored");
    shop.sh("mkdir p q && cp model.pkl p/ && cp evil.pkl q/model.pkl && cp a.safetensors p/ && cp a.safetensors q/")
        .ok();
    shop.mvault("diff p q --fail-above 99").fails(1, "model.pkl: changed, and cannot be scored");
    assert!(shop.mvault("diff p q").ok().text().contains("1 compared by digest only"));
}

#[test]
fn new_nan_is_not_first() {
    let shop = workshop();
    let model = Model::new(2);
    let bad = model.tuned(3).tampered().with("encoder.layer.1.query.bias", |v| v[5] = f32::NAN);
    shop.write("a.safetensors", &model.file());
    shop.write("b.safetensors", &bad.file());
    let report = diff(&shop, "a.safetensors b.safetensors");
    assert_eq!(first(&report), ("encoder.layer.1.query.bias", 100.0));
    assert_eq!((&report["tensors"][0]["b"]["nan"], &report["tensors"][0]["why"]), (&1.into(), &"nan/inf".into()));
    assert!(report["tensors"][0]["b"]["norm"].is_number(), "NaN poisons");
    assert_eq!(report["tensors"][1]["name"], TAMPERED);
    let text = shop.mvault("diff a.safetensors b.safetensors").ok().text();
    assert!(text.contains("B 1 NaN, 0 infinite, of 64"), "{text}");
}

#[test]
fn metadata_alone_looks_like_weights() {
    let shop = workshop();
    let tensors = Model::new(2).tensors();
    write(&shop, "a", &safetensors(&tensors, "one"));
    write(&shop, "b", &safetensors(&tensors, "two"));
    let report = diff(&shop, "a b");
    assert_eq!(
        (&report["entries"][1]["status"], &report["entries"][1]["header_only"]),
        (&"changed".into(), &true.into())
    );
    assert!(report["tensors"].as_array().unwrap().iter().all(|t| t["status"] == "same"));
    assert_eq!(report["same"], false);
    let text = shop.mvault("diff a b").ok().text();
    assert!(text.contains("model.safetensors  header"), "{text}");
}

#[test]
fn quick_reads_values() {
    let shop = workshop();
    let model = Model::new(2);
    write(&shop, "a", &model.file());
    write(&shop, "b", &model.tuned(1).file());
    shop.mvault("seal a").ok();
    shop.mvault("seal b").ok();
    // A chunk of values is damaged: who reads it, fails.
    let mut bytes = shop.read("b.mvault");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    shop.write("b.mvault", &bytes);
    let report = diff(&shop, "a.mvault b.mvault --quick");
    assert_eq!((&report["entries"][1]["status"], &report["tensors"]), (&"changed".into(), &serde_json::json!([])));
    assert!(shop.mvault("diff a.mvault b.mvault --quick").ok().text().contains("only digests were compared"));
    shop.mvault("diff a.mvault b.mvault").fails(3, "B: b.mvault: model.safetensors: chunk");
}

#[test]
fn side_that_cannot_be_opened_is_not_named() {
    let shop = workshop();
    write(&shop, "a", &Model::new(2).file());
    write(&shop, "b", &Model::new(3).file());
    shop.sh("mvault keygen -o other.txt > other.pub").ok();
    shop.mvault("seal a").ok();
    shop.mvault("seal b -R other.pub").ok();
    shop.mvault("diff a.mvault b.mvault").fails(3, "B: b.mvault: ");
    shop.mvault("diff b.mvault a.mvault").fails(3, "A: b.mvault: ");
    shop.mvault("diff a b --against b.mvault").fails(3, "--against: b.mvault: ");
    assert!(shop.mvault("diff a b.mvault").stderr.contains("-i FILE"));
    shop.mvault("diff a.mvault b.mvault -i other.txt -i home/.config/mvault/identity.txt").ok();
    shop.mvault("diff a nowhere").fails(1, "B: nowhere: no such file");
    shop.mvault("diff a - ").fails(2, "B: standard input");
    shop.mvault("diff a a").fails(2, "the same");
    shop.mvault("diff a ./a/").fails(2, "the same");
    shop.sh("printf '\\x10\\x27\\x00\\x00\\x00\\x00\\x00\\x00{' > bad.safetensors").ok();
    shop.mvault("diff a/model.safetensors bad.safetensors").fails(1, "B: bad.safetensors: ");
}

/// One passphrase for both sides comes through one pipe, and is read once.
#[test]
fn passphrase_is_read_for_one_side_only() {
    let shop = workshop();
    write(&shop, "a", &Model::new(2).file());
    write(&shop, "b", &Model::new(3).file());
    for side in ["a", "b"] {
        shop.sh(&format!("printf secret | mvault seal {side} -o {side}.mvault --passphrase-fd 0")).ok();
    }
    shop.sh("printf secret | mvault diff a.mvault b.mvault --passphrase-fd 0").ok();
    shop.sh("printf wrong | mvault diff a b.mvault --passphrase-fd 0").fails(3, "B: b.mvault: ");
    // One side by key, the other by passphrase.
    shop.mvault("seal a -o k.mvault").ok();
    shop.sh("printf secret | mvault diff k.mvault b.mvault --passphrase-fd 0 -i home/.config/mvault/identity.txt").ok();
}

/// Names are whatever the maker of a model likes.
#[test]
fn hostile_name_reaches_terminal_or_page() {
    let shop = workshop();
    let name = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\"'\u{1b}[2J\u{202e}";
    let file = |seed: u64| {
        let mut tensors = Model::new(seed).tensors();
        tensors.push((name.into(), "F32", vec![2], f32s(&[1.0, if seed == 1 { 2.0 } else { f32::NAN }])));
        tensors.push((format!("{name}{seed}"), "F32", vec![0], vec![]));
        safetensors(&tensors, name)
    };
    shop.write("a/<script>/m.safetensors", &file(1));
    shop.write("b/<script>/m.safetensors", &file(2));
    let text = shop.mvault("diff a b --html r.html --all").ok().text();
    assert!(!text.contains(['\u{1b}', '\u{202e}']) && text.lines().all(|l| l.chars().count() <= 80), "{text}");
    let page = String::from_utf8(shop.read("r.html")).unwrap();
    for bad in
        ["<script", "<img", "javascript:", "http:", "https:", "src=", "href", "url(", "@import", "\u{1b}", "\u{202e}"]
    {
        let found = page.find(bad).map(|at| page[at.saturating_sub(40)..].chars().take(120).collect::<String>());
        assert!(found.is_none() || bad == "src=", "{bad}: {found:?}");
    }
    assert!(page.contains("&lt;script&gt;") && page.contains("default-src 'none'"));
    // Only tags that the page itself writes.
    for tag in page.split('<').skip(1) {
        let tag = tag.trim_start_matches('/').split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap();
        let known = "!doctype html head meta title style body h1 h2 p br table tr th td div figure figcaption svg text rect line circle polygon polyline";
        assert!(tag.is_empty() || known.split(' ').any(|k| k == tag), "<{tag}");
    }
}

#[test]
fn page_overwrites_or_is_half_written() {
    let shop = workshop();
    write(&shop, "a", &Model::new(2).file());
    write(&shop, "b", &Model::new(2).tuned(1).tampered().file());
    shop.write("r.html", b"mine");
    shop.mvault("diff a b --html r.html").fails(1, "r.html: already exists");
    assert_eq!(shop.read("r.html"), b"mine");
    shop.mvault("diff a b --html r.html --force").ok();
    let page = String::from_utf8(shop.read("r.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n") && page.contains(TAMPERED));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.matches("<svg").count() >= 3);
    shop.mvault("diff a nowhere --html new.html").fails(1, "no such file");
    assert!(!shop.exists("new.html"));
    assert!(shop.names().iter().all(|n| !n.contains(".mvault-")), "{:?}", shop.names());
}

#[test]
fn version_is_looked_for_elsewhere() {
    let shop = workshop();
    for seed in 1..=3 {
        write(&shop, "f", &Model::new(seed).file());
        shop.mvault("push f vault m --tag last").ok();
    }
    shop.mvault("push f vault other").ok();
    let report = diff(&shop, "--vault vault m:2 m@last");
    assert_eq!((&report["b"]["model_version"], &report["earlier_steps"]), (&3.into(), &1.into()));
    shop.mvault("diff --vault vault m:3 m").fails(2, "the same");
    shop.mvault("diff --vault vault m:3 m:9").fails(5, "B: ");
    shop.mvault("diff m:1 m:2").fails(1, "A: m:1: no such file");
    shop.write("mvault.toml", b"vault = \"vault\"\n");
    assert_eq!(diff(&shop, "m:1 m:2")["a"]["name"], "m");
    assert_eq!(diff(&shop, "m:3 other:1")["earlier_steps"], 0);
    // A rollback has the history before both.
    assert_eq!(diff(&shop, "m:3 m:2")["earlier_steps"], 1);
    // Somebody who lost the key for an older version is told, and gets the rest.
    shop.sh("mvault keygen -o x.txt > x.pub && mvault pull vault m:1 --sealed -o one.mvault && cp -r vault v2").ok();
    shop.sh("mvault push f v2 n -R x.pub && mvault push f v2 n && cp f/config.json f/c2.json && mvault push f v2 n")
        .ok();
    let done = shop.mvault("diff --vault v2 n:2 n:3").ok();
    assert!(done.stderr.contains("the scores do without it"), "{}", done.stderr);
    // What was swapped in the vault is found out.
    shop.sh("cp v2/m/1 v2/m/2").ok();
    shop.mvault("diff --vault v2 m:2 m:3").fails(3, "[F-42]");
    shop.mvault("keygen --signing -o sign.pem").ok();
    shop.mvault("diff m:1 m:2 --signer sign.pem.pub").fails(3, "A: ");
}

/// The weights of a real model, with one real layer changed by a tenth of its deviation.
#[test]
fn tampered_real_layer_hides() {
    let Some(a) = real() else { return println!("skipped: no MVAULT_TEST_MODELS") };
    let shop = workshop();
    let layer = "encoder.layer.2.attention.self.value.weight";
    let mut b = a.clone();
    noisy(&mut b, 5, 0.01, None);
    shop.write("tuned.safetensors", &b);
    noisy(&mut b, 6, 0.1, Some(layer));
    shop.write("a.safetensors", &a);
    shop.write("b.safetensors", &b);
    let clean = diff(&shop, "a.safetensors tuned.safetensors");
    assert!(first(&clean).1 < 4.0, "{:?}", first(&clean));
    let report = diff(&shop, "a.safetensors b.safetensors");
    assert!(first(&report).0 == layer && first(&report).1 > 4.0, "{:?}", first(&report));
    assert!(report["tensors"][1]["score"].as_f64().unwrap() < 4.0, "{}", report["tensors"][1]);
    // Without training around it as well.
    let mut alone = a;
    noisy(&mut alone, 7, 0.001, Some(layer));
    shop.write("b.safetensors", &alone);
    let report = diff(&shop, "a.safetensors b.safetensors");
    assert!(first(&report).0 == layer && report["tensors"][1]["score"] == 0.0, "{:?}", first(&report));
    shop.mvault("seal b.safetensors").ok();
    let peak = peak_of(&shop, "diff a.safetensors b.safetensors.mvault");
    assert!(peak < 48 << 10, "{peak} KiB of memory for two models of 90 MB");
}

/// Peak memory of a run, KiB.
fn peak_of(shop: &Workshop, args: &str) -> u64 {
    let program = "import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let done = shop.command("python3").args(["-c", program, "mvault"]).args(args.split(' ')).output().unwrap();
    Done::from(done).ok().text().trim().parse().unwrap()
}
