//! Misconfigurations and attacks: each a request that one thing is wrong with, and the step that must refuse it.

use crate::rig::{Rig, policy_text};
use mvault_tests::asker::{Asker, Attempt, now_s};
use mvault_tests::evidence::{self, Chain, Envelope, Evidence, TestRoot};
use std::collections::BTreeMap;
use std::sync::Arc;
use vault_attest::release::EnclaveKey;
use vault_broker::keyring::Keyring;
use vault_core::header::hex;

/// Makes a request's bytes.
pub type Make = fn(&mut World) -> Vec<u8>;

/// A running broker, and what the cases need.
pub struct World {
    pub rig: Rig,
    pub asker: Asker,
    headers: BTreeMap<&'static str, Vec<u8>>,
    /// What is granted, before this request, to make it the one too many.
    pub granted_before: Vec<Vec<u8>>,
}

/// Image of the policy `quota`, which gets three keys an hour.
const QUOTA_PCR0: [u8; 48] = [0xC0; 48];
pub const QUOTA: usize = 3;

/// Name, the step that must refuse, the request.
pub const CASES: &[(&str, &str, Make)] = &[
    ("request_is_json", "R-1", |_| b"{\"nonce\": \"00\"}".to_vec()),
    ("request_is_empty", "R-1", |_| Vec::new()),
    ("request_cut_short", "R-1", |w| w.good(|_| {}).split_last().unwrap().1.to_vec()),
    ("byte_after_the_request", "R-1", |w| [w.good(|_| {}), vec![0]].concat()),
    ("enclave_key_of_x25519", "R-1", |w| w.good(|a| a.public_key.truncate(32))),
    ("nonce_made_up", "R-2", |w| w.good(|a| a.nonce = [7; 32])),
    ("nonce_of_another_broker", "R-2", |w| {
        let other = Keyring::generate(0, &mut system_rng()).unwrap();
        let nonce = other.nonce_key().issue(now_s(), &mut system_rng());
        w.good(|a| a.nonce = nonce)
    }),
    ("nonce_expired", "R-3", |w| {
        let nonce = w.rig.keyring().nonce_key().issue(now_s() - 200, &mut system_rng());
        w.good(|a| a.nonce = nonce)
    }),
    ("header_is_a_pickle", "R-4", |w| {
        let pickle = w.rig.shop.read("model.pkl");
        w.good(|a| a.header = pickle)
    }),
    ("header_of_another_version", "R-4", |w| w.good(|a| a.header[11] = 2)),
    ("sealed_for_a_key_file_only", "R-5", |w| w.of("key-file", |_| {})),
    ("sealed_for_another_broker", "R-5", |w| w.of("other-broker", |_| {})),
    ("salt_of_another_artifact", "R-5", |w| w.good(|a| a.header[30] ^= 1)),
    ("stanza_that_is_not_there", "R-5", |w| w.good(|a| a.stanza = 7)),
    ("policy_misspelt", "R-6", |w| w.of("misspelt", |_| {})),
    ("policy_changed_since_it_was_pinned", "R-6", |w| w.of("pinned", |_| {})),
    ("artifact_revoked", "R-7", |w| w.of("revoked", |_| {})),
    ("recipient_revoked", "R-7", |w| w.of("old-key", |_| {})),
    ("document_missing", "R-1", |w| w.document(|_| Vec::new())),
    ("document_in_base64", "V-2", |w| w.document(|good| base64(&good))),
    ("document_with_a_newline", "V-2", |w| w.document(|good| [good, b"\n".to_vec()].concat())),
    ("document_of_an_es256_signer", "V-3", |w| {
        w.enveloped(|envelope, chain| envelope.with_protected(chain, &[0xA1, 1, 0x26]))
    }),
    ("header_added_by_a_proxy", "V-4", |w| {
        w.enveloped(|envelope, _| Envelope { unprotected: vec![0xA1, 4, 0x41, 0], ..envelope })
    }),
    ("emulator_that_does_not_sign", "V-5", |w| {
        w.enveloped(|envelope, _| Envelope { signature: evidence::bytes(&[0; 96]), ..envelope })
    }),
    ("digest_of_another_generation", "V-8", |w| w.evidence(|e| e.digest = "SHA512".into())),
    ("broker_clock_an_hour_behind", "V-9", |w| w.evidence(|e| e.time_ms += 3_600_000)),
    ("pcr1_missing", "V-10", |w| w.evidence(|e| drop(e.pcrs.remove(&1)))),
    ("pcr0_in_hex", "V-10", |w| w.evidence(|e| *e = e.clone().with_pcr(0, hex(&Evidence::pcr(0)).as_bytes()))),
    ("x_wing_key_in_the_document", "V-12", |w| w.evidence(|e| *e = e.clone().with_public_key(&[1; 1216]))),
    ("wrong_root", "V-14", |w| {
        let chain = TestRoot::new().chain(now_s());
        w.chain(chain)
    }),
    ("wrong_root_that_sends_the_right_one", "V-21", |w| {
        let mut chain = TestRoot::new().chain(now_s());
        chain.certificates[0] = w.asker.root.der().to_vec();
        w.chain(chain)
    }),
    ("leaf_expired_while_the_enclave_ran", "V-20", |w| {
        let chain = w.asker.root.chain(now_s() - 4 * 3600);
        w.chain(chain)
    }),
    ("old_document_sent_again", "V-20", |w| {
        let then = now_s() - 4 * 3600;
        let chain = Arc::new(w.asker.root.chain(then));
        w.good(|a| (a.chain, a.evidence.time_ms) = (chain, then * 1000))
    }),
    ("document_changed", "V-22", |w| {
        w.document(|mut good| {
            let at = good.windows(48).position(|w| w == Evidence::pcr(0)).unwrap();
            good[at] ^= 1;
            good
        })
    }),
    ("zero_pcrs", "V-23", |w| w.evidence(|e| *e = e.clone().debug())),
    ("evidence_without_user_data", "R-8", |w| w.evidence(|e| e.user_data = None)),
    ("evidence_of_another_enclave_key", "R-8", |w| {
        let other = EnclaveKey::generate(&mut system_rng()).public();
        w.good(|a| a.public_key = other)
    }),
    ("wrong_artifact", "R-8", |w| {
        let other = w.headers["other"].clone();
        w.good(|a| a.header = other)
    }),
    ("evidence_of_another_challenge", "R-8", |w| {
        let nonce = *w.asker.challenge().nonce;
        w.good(|a| a.nonce = nonce)
    }),
    ("broker_clock_an_hour_ahead", "P-3", |w| {
        let then = now_s() - 3600;
        let chain = Arc::new(w.asker.root.chain(then));
        w.good(|a| (a.chain, a.evidence.time_ms) = (chain, then * 1000))
    }),
    ("evidence_older_than_this_policy_wants", "P-3", |w| {
        w.of("strict-age", |a| a.evidence.time_ms = (now_s() - 100) * 1000)
    }),
    ("evidence_without_a_nonce", "P-4", |w| w.evidence(|e| e.nonce = None)),
    ("nonce_prefix", "P-4", |w| w.evidence(|e| e.nonce.as_mut().unwrap().truncate(16))),
    ("nonce_and_more", "P-4", |w| w.evidence(|e| e.nonce.as_mut().unwrap().push(0))),
    ("old_image", "P-5", |w| w.evidence(|e| (0..3).for_each(|i| *e = e.clone().with_pcr(i, &[0x11; 48])))),
    ("pcr1_of_another_kernel", "P-5", |w| {
        w.evidence(|e| *e = e.clone().with_pcr(0, &[0x21; 48]).with_pcr(1, &[0x22; 48]))
    }),
    ("application_rebuilt", "P-5", |w| {
        w.evidence(|e| *e = e.clone().with_pcr(0, &[0x31; 48]).with_pcr(2, &[0x33; 48]))
    }),
    ("image_not_signed", "P-5", |w| w.of("signed-image", |_| {})),
    ("image_of_another_role", "P-5", |w| w.of("role", |_| {})),
    ("release_not_yet_allowed", "P-6", |w| w.of("not-yet", |_| {})),
    ("release_no_longer_allowed", "P-6", |w| w.of("ended", |_| {})),
    ("artifact_out_of_scope", "P-7", |w| w.of("scope-artifact", |_| {})),
    ("broker_key_out_of_scope", "P-8", |w| w.of("scope-key", |_| {})),
    ("model_out_of_scope", "P-9", |w| w.of("scope-model", |_| {})),
    ("model_too_old", "P-10", |w| w.of("minimum", |_| {})),
    ("model_not_signed", "P-11", |w| w.of("unsigned", |_| {})),
    ("model_signed_by_somebody_else", "P-11", |w| w.of("foreign", |_| {})),
    ("stanza_changed_after_sealing", "R-9", |w| {
        let mut header = w.headers["prod"].clone();
        let end = 92 + usize::from(u16::from_be_bytes([header[90], header[91]]));
        header[end - 1] ^= 1;
        w.of_header(&header, |_| {})
    }),
    ("header_mac_changed", "R-10", |w| {
        let mut header = w.headers["prod"].clone();
        *header.last_mut().unwrap() ^= 1;
        w.of_header(&header, |_| {})
    }),
    ("commitment_changed", "R-10", |w| {
        let mut header = w.headers["prod"].clone();
        header[60] ^= 1;
        w.of_header(&header, |_| {})
    }),
    ("nonce_used_by_a_grant", "R-11", |w| {
        let body = w.good(|_| {});
        w.granted_before.push(body.clone());
        body
    }),
    ("nonce_used_by_a_refusal", "R-11", |w| {
        let header = w.headers["prod"].clone();
        let mut attempt = w.asker.attempt(&header);
        let good = attempt.body();
        attempt.evidence = attempt.evidence.debug();
        assert_eq!(w.asker.ask(&attempt.body()).refused().step, "V-23");
        good
    }),
    ("quota_of_an_image", "R-12", |w| {
        let pcr0 = |a: &mut Attempt| a.evidence = a.evidence.clone().with_pcr(0, &QUOTA_PCR0);
        for _ in 0..QUOTA {
            let body = w.of("quota", pcr0);
            w.granted_before.push(body);
        }
        w.of("quota", pcr0)
    }),
];

pub fn system_rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
    rand_core::UnwrapErr(getrandom::SysRng)
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    evidence::der::to_pem(bytes).lines().filter(|line| !line.starts_with('-')).collect::<String>().into_bytes()
}

impl World {
    pub fn new() -> Self {
        let rig = Rig::new();
        let mut headers = BTreeMap::new();
        // What an old key of this broker opens, and an artifact, are revoked.
        headers.insert("old-key", rig.seal("old-key", "prod"));
        let old = hex(rig.keyring().keys()[0].key.id());
        rig.shop.mvault("broker rotate broker").ok();
        policies(&rig);
        for name in ["prod", "other", "revoked"] {
            headers.insert(name, rig.seal(name, "prod"));
        }
        rig.set("artifacts", &format!("[\"{}\"]", hex(&headers["revoked"][24..56])));
        rig.set("recipients", &format!("[\"{old}\"]"));
        rig.set("per_measurement", &QUOTA.to_string());
        for name in POLICIES {
            headers.insert(name, rig.seal(name, name));
        }
        // Of what the policy `signed` takes only the publisher's, which is asked for before.
        for (name, key) in [("foreign", "--sign theirs.pem"), ("unsigned", ""), ("signed", "--sign ours.pem")] {
            headers.insert(name, rig.seal_for(name, &rig.line("signed"), key));
        }
        headers.insert("misspelt", rig.seal("misspelt", "prdo"));
        let pinned = rig.shop.mvault("broker recipient broker pinned --pin").ok().text();
        headers.insert("pinned", rig.seal_for("pinned", &pinned, ""));
        rig.policy("pinned", "", "# an image was added\n");
        rig.shop.mvault("seal bert -o key-file.mvault").ok();
        headers.insert("key-file", rig.header("key-file"));
        rig.shop.mvault("broker init broker2 --host localhost").ok();
        rig.shop.write("broker2/policies/prod.toml", policy_text("prod", "", "", &[1; 48]).as_bytes());
        let other = rig.shop.mvault("broker recipient broker2 prod").ok().text();
        headers.insert("other-broker", rig.seal_for("other-broker", &other, ""));
        let mut rig = rig;
        rig.start();
        let asker = rig.asker();
        Self { rig, asker, headers, granted_before: Vec::new() }
    }

    fn of_header(&mut self, header: &[u8], change: impl FnOnce(&mut Attempt)) -> Vec<u8> {
        let mut attempt = self.asker.attempt(header);
        change(&mut attempt);
        attempt.body()
    }

    /// A request for the artifact of this name, with one change.
    fn of(&mut self, name: &str, change: impl FnOnce(&mut Attempt)) -> Vec<u8> {
        let header = self.headers[name].clone();
        self.of_header(&header, change)
    }

    /// A request that would be granted, with one change.
    pub fn good(&mut self, change: impl FnOnce(&mut Attempt)) -> Vec<u8> {
        self.of("prod", change)
    }

    /// The same, with one change in what the hardware signs.
    fn evidence(&mut self, change: impl FnOnce(&mut Evidence)) -> Vec<u8> {
        self.good(|a| change(&mut a.evidence))
    }

    fn chain(&mut self, chain: Chain) -> Vec<u8> {
        self.good(|a| a.chain = Arc::new(chain))
    }

    /// The same, with another document.
    fn document(&mut self, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        self.good(|a| a.document = Some(change(a.evidence.sign(&a.chain))))
    }

    fn enveloped(&mut self, change: impl FnOnce(Envelope, &Chain) -> Envelope) -> Vec<u8> {
        self.good(|a| {
            let payload = evidence::encode(a.evidence.fields(&a.chain));
            a.document = Some(change(Envelope::new(&a.chain, &payload), &a.chain).document());
        })
    }
}

/// Policies that have an artifact of their own.
const POLICIES: [&str; 10] = [
    "signed-image",
    "role",
    "not-yet",
    "ended",
    "scope-artifact",
    "scope-key",
    "scope-model",
    "minimum",
    "strict-age",
    "quota",
];

fn policies(rig: &Rig) {
    let other = "ab".repeat(32);
    let pcr = |index: u8, byte: &str| format!("pcr{index} = \"{}\"", byte.repeat(48));
    rig.policy("pinned", "", "");
    rig.policy("signed-image", "", &pcr(8, "88"));
    rig.policy("role", "", &pcr(3, "13"));
    rig.policy("not-yet", "", "not_before = \"2099-01-01T00:00:00Z\"");
    rig.policy("ended", "", "not_after = \"2020-01-01T00:00:00Z\"");
    rig.policy("scope-artifact", &format!("[scope]\nartifacts = [\"{other}\"]"), "");
    rig.policy("scope-key", &format!("[scope]\nrecipients = [\"{other}\"]"), "");
    rig.policy("scope-model", "[scope]\nmodels = [\"minilm\"]", "");
    rig.policy("minimum", "minimum_model_version = 3", "");
    for name in ["ours", "theirs"] {
        rig.shop.mvault(&format!("keygen --signing -o {name}.pem")).ok();
    }
    let pem = String::from_utf8(rig.shop.read("ours.pem.pub")).unwrap();
    let key: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    rig.policy("signed", &format!("[scope]\nsigners = [\"{key}\"]"), "");
    rig.policy("strict-age", "max_age_s = 60", "");
    let quota = policy_text("quota", "", "", &QUOTA_PCR0);
    rig.shop.write("broker/policies/quota.toml", quota.as_bytes());
}
