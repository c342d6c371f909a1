use super::*;

const GOOD: &str = include_str!("../../../vault-cli/tests/enclave.toml");

#[track_caller]
fn refused(from: &str, to: &str, words: &str) {
    let file = GOOD.replacen(from, to, 1);
    assert_ne!(file, GOOD, "{from:?} is not in it");
    let error = Config::parse(file.as_bytes()).unwrap_err().to_string();
    assert!(error.contains(words), "expected {words:?} in: {error}");
}

#[test]
fn what_the_command_writes_is_taken() {
    let config = Config::parse(GOOD.as_bytes()).unwrap();
    assert_eq!((config.model.name.as_str(), config.model.minimum_version), ("minilm", 1));
    assert_eq!(config.serve, Serve::default());
    assert_eq!(config.watch, Watch::default());
}

#[test]
fn tables_that_are_left_out_have_their_defaults() {
    let (file, _) = GOOD.split_once("[serve]").unwrap();
    let config = Config::parse(file.as_bytes()).unwrap();
    assert_eq!((config.serve, config.watch), (Serve::default(), Watch::default()));
}

#[test]
fn keys_that_are_unknown_missing_or_wrong_are_named() {
    refused("version = 1", "version = 2", "version: only 1 is known");
    refused("minimum_version", "minimum_versoin", "minimum_versoin");
    refused("minimum_version = 1\n", "", "minimum_version");
    refused("name = \"minilm\"", "name = \"\"", "model.name");
    refused("name = \"minilm\"", "name = \"a\\nversion=9\"", "model.name: a control character");
    refused("BEGIN PUBLIC KEY", "BEGIN CERTIFICATE", "model.signer");
    refused("keys = [\"", "keys = [\"x", "broker.keys");
    refused("log = \"", "log = \"x", "broker.log");
    refused("max_tokens = 256", "max_tokens = 0", "serve.max_tokens: 0");
    refused("max_request_bytes = 65536", "max_request_bytes = 65536000", "serve.max_request_bytes");
    refused("tokens_per_day = 10000000", "tokens_per_day = 0", "serve.tokens_per_day");
    refused("engine = \"bert\"", "engine = \"gpt\"", "gpt");
    refused("warn = 20000", "warn = 60000", "watch: expected");
    refused("[watch]", "[[client]]\nname = \"a b\"\ntoken_sha256 = \"\"\n[watch]", "client.name");
    refused("[watch]", "[[client]]\nname = \"a\"\ntoken_sha256 = \"00\"\n[watch]", "client.token_sha256");
}

#[test]
fn oversize_and_binary_files_are_refused() {
    let error = Config::parse(&vec![b'#'; MAX_FILE + 1]).unwrap_err();
    assert!(matches!(error, ConfigError::Size(n) if n == MAX_FILE + 1));
    assert!(Config::parse(b"\xff").is_err());
}

const KMS: &str =
    "[kms]\nkey = \"arn:aws:kms:eu-west-1:111122223333:key/1234abcd\"\nurl = \"https://kms.example\"\nca = \"\"\n";

#[test]
fn keys_come_from_a_broker_or_from_kms_and_not_from_both() {
    let (before, rest) = GOOD.split_once("[broker]").unwrap();
    let (broker, after) = rest.split_once("[serve]").unwrap();
    let with = |keys: &str| Config::parse(format!("{before}{keys}\n[serve]{after}").as_bytes());
    let config = with(KMS).unwrap();
    assert_eq!(config.keys.to_string(), "AWS KMS key arn:aws:kms:eu-west-1:111122223333:key/1234abcd");
    let refused = |keys: &str, words: &str| {
        let error = with(keys).unwrap_err().to_string();
        assert!(error.contains(words), "expected {words:?} in: {error}");
    };
    refused("", "expected [broker] or [kms], and not both");
    refused(&format!("[broker]{broker}\n{KMS}"), "expected [broker] or [kms], and not both");
    refused(&KMS.replace("key/1234abcd", "alias/prod"), "kms.key: expected arn:aws:kms");
    refused(&KMS.replace("https://kms.example", "http://kms.example"), "kms.url: expected https://");
    refused(&KMS.replace("https://kms.example", "https://kms.example/path"), "kms.url: expected https://");
}
