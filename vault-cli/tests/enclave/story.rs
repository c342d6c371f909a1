//! The story: sealed, pushed to a real S3 server, booted, attested, released, streamed, asked.

use crate::stage::stage;
use mvault_tests::server::Server;

/// The two sentences and their embeddings from sentence-transformers.
fn golden() -> (Vec<String>, Vec<Vec<f32>>) {
    let file = include_str!("../../../tests/vectors/minilm/golden.json");
    let json: serde_json::Value = serde_json::from_str(file).unwrap();
    (
        serde_json::from_value(json["sentences"].clone()).unwrap(),
        serde_json::from_value(json["embeddings"].clone()).unwrap(),
    )
}

#[test]
fn a_model_in_s3_answers_from_an_attested_enclave_and_its_parent_sees_ciphertext() {
    let Some(stage) = stage() else { return };
    let Some(server) = Server::shared() else { return };
    server.create_bucket("enclave");
    let mut push = stage.shop.command(env!("CARGO_BIN_EXE_mvault"));
    let line = "push minilm s3://enclave/team minilm --model-version 2 --sign sign.pem -R line.txt";
    let pushed = push.args(line.split(' ')).envs(server.env()).output().unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let mut run = stage.run("good.eif", "s3://enclave/team/minilm:2", "--dangerous-dev-signer dev", &server.env());
    let url = run.ready();
    for line in
        run.log().lines().filter(|line| line.contains("E-5") || line.contains("E-7] loaded") || line.contains("ready"))
    {
        println!("{line}");
    }
    let (sentences, embeddings) = golden();
    let body = serde_json::json!({ "input": sentences }).to_string();
    stage.shop.write("request.json", body.as_bytes());
    let call = |more: &str| {
        stage.shop.mvault(&format!("enclave call --policy prod.toml {url} --dangerous-dev-root dev/root.pem {more}"))
    };
    let answer = call("--data request.json --model minilm --min-version 2").ok().json();
    for (index, expected) in embeddings.iter().enumerate() {
        let found: Vec<f32> = serde_json::from_value(answer["data"][index]["embedding"].clone()).unwrap();
        assert_eq!(found.len(), 384);
        let distance = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("sentence {index}: largest difference {distance:e}");
        assert!(distance < 1e-4, "sentence {index}: {distance}");
    }
    // Peak memory inside: 1.05 x the weights and 64 MiB.
    let log = run.log();
    let memory = log.lines().find(|line| line.contains("peak memory")).unwrap();
    let numbers: Vec<f64> =
        memory.split_once("peak memory").unwrap().1.split(' ').filter_map(|w| w.parse().ok()).collect();
    assert!(numbers[0] < numbers[1], "{memory}");
    assert!(
        log.lines().filter(|line| line.contains("mvault-init")).all(|line| line.starts_with("[dev root]")),
        "{log}"
    );
    // The parent's memory, after all of the model and the answers went through it: neither weights nor words.
    let memory = memory_of(run.pid());
    let weights = stage.shop.read("minilm/model.safetensors");
    for at in [weights.len() / 3, weights.len() / 2, weights.len() - 4096] {
        assert!(find(&memory, &weights[at..at + 32]).is_none(), "weights at {at} are in the parent's memory");
    }
    assert!(find(&memory, sentences[0].as_bytes()).is_none(), "a question is in the parent's memory");
    assert!(find(&memory, b"mvault-init").is_some(), "the search sees nothing at all");
    // What must be refused: without the root, with another model's name, with a policy of another image.
    stage.shop.mvault(&format!("enclave call --policy prod.toml {url} x")).fails(3, "V-14");
    call("--model other x").fails(4, "T-6");
    call("--min-version 3 x").fails(4, "the model's version: expected 3 or later, found 2 [T-6]");
    let other = String::from_utf8(stage.shop.read("prod.toml")).unwrap();
    let digit = other.split_once("pcr2 = \"").unwrap().1.chars().next().unwrap();
    let changed = if digit == '0' { '1' } else { '0' };
    stage
        .shop
        .write("other.toml", other.replace(&format!("pcr2 = \"{digit}"), &format!("pcr2 = \"{changed}")).as_bytes());
    stage
        .shop
        .mvault(&format!("enclave call --policy other.toml {url} --dangerous-dev-root dev/root.pem x"))
        .fails(4, "PCR2");
    let (code, log) = run.interrupt();
    assert!(code == 0 && log.ends_with("stopped\n"), "{code}: {log}");
}

#[test]
fn an_image_that_differs_in_one_byte_gets_no_key() {
    let Some(stage) = stage() else { return };
    let mut init = std::fs::read(&stage.parts.guest).unwrap();
    *init.last_mut().unwrap() ^= 1; // of the section headers: it runs all the same
    stage.shop.write("init", &init);
    stage.build("changed.eif", "enclave.toml", &stage.shop.path("init"));
    let (code, log) = stage.run("changed.eif", "two.mvault", "--dangerous-dev-signer dev", &[]).ended();
    assert!(code == 4 && log.contains("[E-5] refused at step P-5"), "{code}: {log}");
    assert!(!log.contains("[E-6]"), "{log}");
}

#[test]
fn unsigned_documents_of_the_stock_emulator_are_refused() {
    let Some(stage) = stage() else { return };
    let (code, log) = stage.run("good.eif", "two.mvault", "", &[]).ended();
    assert!(code == 4 && log.contains("[E-5] refused at step V-3"), "{code}: {log}");
    assert!(!log.contains("dev root"), "{log}");
}

#[test]
fn missing_pieces_are_named_with_what_brings_them() {
    let Some(stage) = stage() else { return };
    let run = |line: &str| stage.shop.mvault(&format!("enclave run {line} --broker 127.0.0.1:1"));
    let here = format!("--emulator {}", stage.parts.emulator.display());
    run("good.eif two.mvault").fails(1, "scripts/setup.sh emulator"); // this home has none
    run("good.eif two.mvault --emulator nowhere").fails(1, "nowhere/qemu-system-x86_64: not there");
    run(&format!("good.eif two.mvault {here} --dangerous-dev-signer nowhere")).fails(1, "scripts/dev-root.sh");
    run(&format!("none.eif two.mvault {here}")).fails(1, "none.eif: no such file");
    run(&format!("good.eif none.mvault {here}")).fails(1, "none.mvault: no such file");
    stage.shop.mvault("enclave call --policy prod.toml https://127.0.0.1:1 x").fails(1, "mvault enclave run");
    stage.shop.mvault("enclave call --policy prod.toml http://127.0.0.1:1 x").fails(2, "expected https://");
}

/// All that a process has written to, as the system shows it to root.
fn memory_of(pid: u32) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if file.read_exact_at(&mut bytes, from).is_ok() {
            all.extend(bytes);
        }
    }
    all
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    haystack.windows(needle.len()).position(|window| window[0] == first && window == needle)
}

/// `--cmd`: the image's own server, with the model's files in memory.
#[test]
fn an_images_own_server_has_the_models_files() {
    let Some(stage) = stage() else { return };
    let server = stage.parts.guest.with_file_name("mvault-files");
    stage.shop.sh(&format!("mkdir -p app && cp {} app/", server.display())).ok();
    stage.configure("own.toml", "--min-version 2");
    let (emulator, init, eif) = (&stage.parts.emulator, &stage.parts.guest, &stage.parts.eif);
    let build = |cmd: &str, name: &str| {
        let mut command = stage.shop.command(env!("CARGO_BIN_EXE_mvault"));
        command
            .args(["enclave", "build", "--config", "own.toml", "--add", "app", "--cmd", cmd, "-o", name, "--kernel"]);
        command.arg(emulator.join("bzImage")).arg("--init").arg(init).arg("--eif-tool").arg(eif);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        stage.policy(name);
    };
    build("/app/mvault-files", "own.eif");
    let mut run = stage.run("own.eif", "two.mvault", "--dangerous-dev-signer dev", &[]);
    let url = run.ready();
    let get = |path: &str| {
        let line = format!("enclave call --policy prod.toml {url}/{path} --get --dangerous-dev-root dev/root.pem");
        stage.shop.mvault(&line)
    };
    for name in ["model.safetensors", "config.json", "1_Pooling/config.json"] {
        let file = stage.shop.read(&format!("minilm/{name}"));
        let expected = format!("{} {}", file.len(), blake3::hash(&file).to_hex());
        assert_eq!(get(name).ok().text().trim(), expected, "{name}");
    }
    get("nothing").fails(1, "status 404");
    let (code, _) = run.interrupt();
    assert_eq!(code, 0);
    stage.policy("good.eif");
}
