use super::*;
use crate::evidence::{MAX_PCRS, VerifiedEvidence};
use vault_core::header::Header;
use vault_core::seal::SealOptions;
use vault_core::signature::PublisherKey;

const NOW_MS: u64 = 1_795_000_000_000;
const NONCE: [u8; 32] = [7; 32];

fn pcr(byte: u8) -> Pcr {
    [byte; 48]
}

fn evidence() -> VerifiedEvidence {
    let mut pcrs = [Some([0; 48]); MAX_PCRS];
    for (index, byte) in [(0, 0xA0), (1, 0xA1), (2, 0xA2), (3, 0xA3), (8, 0xA8)] {
        pcrs[index] = Some(pcr(byte));
    }
    VerifiedEvidence {
        platform: Platform::AwsNitro,
        module_id: "i-0-enc0".into(),
        time_ms: NOW_MS - 1000,
        pcrs,
        public_key: vec![],
        user_data: vec![],
        nonce: NONCE.to_vec(),
        valid_from_s: 0,
        valid_to_s: u64::MAX,
        root: [0; 32],
        digest: [0; 32],
    }
}

fn demand() -> Demand<'static> {
    Demand { now_ms: NOW_MS, nonce: Some(&NONCE), artifact: Some(&[1; 32]), recipient: Some(&[2; 32]) }
}

fn file() -> String {
    let hex = crate::nitro::hex;
    format!(
        "version = 1\nname = \"prod\"\nplatform = \"aws-nitro\"\nmax_age_s = 300\nminimum_model_version = 3\n\n[scope]\n\
         artifacts = [\"{}\"]\nmodels = [\"minilm\"]\nrecipients = [\"{}\"]\n\n[[release]]\nname = \"1.4.0\"\n\
         pcr0 = \"{}\"\npcr1 = \"{}\"\npcr2 = \"{}\"\n",
        hex(&[1; 32]),
        hex(&[2; 32]),
        hex(&pcr(0xA0)),
        hex(&pcr(0xA1)),
        hex(&pcr(0xA2))
    )
}

fn policy() -> Policy {
    Policy::parse(file().as_bytes()).unwrap()
}

fn denied(policy: &Policy, change: impl FnOnce(&mut VerifiedEvidence), demand: &Demand<'_>) -> Denial {
    let mut changed = evidence();
    change(&mut changed);
    policy.appraise(&changed, demand).unwrap_err()
}

fn unsigned(name: &str, version: u64) -> Model<'_> {
    Model { name, version, signature: None }
}

#[test]
fn good_evidence_is_granted() {
    let policy = policy();
    let result = policy.appraise(&evidence(), &demand()).unwrap().model(&unsigned("minilm", 3)).unwrap();
    assert_eq!((result.policy(), result.release(), result.minimum_model_version()), ("prod", "1.4.0", Some(3)));
    assert_eq!(result.policy_digest(), policy.digest());
    assert!(result.not_judged().is_empty());
    let nothing = Demand { nonce: None, artifact: None, recipient: None, ..demand() };
    let result = policy.appraise(&evidence(), &nothing).unwrap().without_model();
    assert_eq!(result.not_judged(), [4, 7, 8, 9, 10, 11].map(Step::P));
}

#[test]
fn old_and_future_evidence_is_denied() {
    let policy = policy();
    for (time_ms, ok) in [
        (NOW_MS - 300_000, true),
        (NOW_MS - 301_000, false),
        (NOW_MS + 300_000, true),
        (NOW_MS + 301_000, false),
        (NOW_MS - 3_600_000, false),
        (0, false),
        (u64::MAX, false),
    ] {
        let mut changed = evidence();
        changed.time_ms = time_ms;
        let step = policy.appraise(&changed, &demand()).map(|_| ()).map_err(|d| d.refusal.step);
        assert_eq!(step, if ok { Ok(()) } else { Err(Step::P(3)) }, "{time_ms}");
    }
}

#[test]
fn nonce_prefix_longer_absent_are_denied() {
    let policy = policy();
    for nonce in [&NONCE[..31], &[7; 33], &[], &[8; 32]] {
        assert_eq!(denied(&policy, |e| e.nonce = nonce.to_vec(), &demand()).refusal.step, Step::P(4));
    }
    let empty = Demand { nonce: Some(&[]), ..demand() };
    assert_eq!(denied(&policy, |_| (), &empty).refusal.step, Step::P(4));
}

#[test]
fn each_pcr_mismatch_is_named_and_explained() {
    let policy = policy();
    let cases: [(&[usize], &str); 5] = [
        (&[0], "only PCR0 differs"),
        (&[0, 1], "on another kernel"),
        (&[0, 2], "with another application"),
        (&[1], "another image"),
        (&[0, 1, 2], "another image"),
    ];
    for (changed, fix) in cases {
        let change = |e: &mut VerifiedEvidence| changed.iter().for_each(|&i| e.pcrs[i] = Some(pcr(0xFF)));
        let denial = denied(&policy, change, &demand());
        assert_eq!(denial.refusal.step, Step::P(5));
        assert!(denial.fix.contains(fix), "{changed:?}: {}", denial.fix);
        for i in 0..3 {
            assert_eq!(denial.refusal.actual.contains(&format!("PCR{i} ff")), changed.contains(&i), "{changed:?}");
        }
        let first = changed[0];
        assert!(denial.policy_line.starts_with(&format!("prod:{}: pcr{first}", 14 + first)), "{}", denial.policy_line);
    }
    let denial = denied(&policy, |e| e.pcrs[1] = None, &demand());
    assert!(denial.refusal.actual.contains("absent"), "{denial}");
    let swapped = denied(&policy, |e| e.pcrs.swap(1, 2), &demand());
    assert!(swapped.fix.contains("swapped"), "{}", swapped.fix);
}

#[test]
fn optional_pcrs_count_when_named() {
    for (index, fix) in [(3, "IAM role"), (4, "parent instance"), (8, "certificate")] {
        let with = |byte| format!("{}pcr{index} = \"{}\"\n", file(), crate::nitro::hex(&pcr(byte)));
        let denial = denied(&Policy::parse(with(0xEE).as_bytes()).unwrap(), |_| (), &demand());
        assert!(denial.fix.contains(fix), "{}", denial.fix);
        if index != 4 {
            let byte = 0xA0 + u8::try_from(index).unwrap();
            assert!(Policy::parse(with(byte).as_bytes()).unwrap().appraise(&evidence(), &demand()).is_ok());
        }
    }
}

#[test]
fn several_releases_stand_side_by_side() {
    let hex = crate::nitro::hex;
    let second = |pcr2: u8, times: &str| {
        let of = |byte| hex(&pcr(byte));
        let (zero, one, two) = (of(0xB0), of(0xA1), of(pcr2));
        format!(
            "{}\n[[release]]\nname = \"1.5.0\"\npcr0 = \"{zero}\"\npcr1 = \"{one}\"\npcr2 = \"{two}\"\n{times}",
            file()
        )
    };
    let newer = |e: &mut VerifiedEvidence| (e.pcrs[0], e.pcrs[2]) = (Some(pcr(0xB0)), Some(pcr(0xB2)));
    let both = Policy::parse(second(0xB2, "").as_bytes()).unwrap();
    let mut changed = evidence();
    newer(&mut changed);
    assert_eq!(both.appraise(&changed, &demand()).unwrap().release(), "1.5.0");
    assert_eq!(both.appraise(&evidence(), &demand()).unwrap().release(), "1.4.0");
    // PCRs of two releases do not mix.
    assert_eq!(denied(&both, |e| e.pcrs[0] = Some(pcr(0xB0)), &demand()).refusal.step, Step::P(5));
    for (times, fix) in [
        ("not_after = \"2026-11-01T00:00:00Z\"\n", "out of force"),
        ("not_before = \"2027-01-01T00:00:00Z\"\n", "not in force yet"),
    ] {
        let denial = denied(&Policy::parse(second(0xB2, times).as_bytes()).unwrap(), newer, &demand());
        assert_eq!(denial.refusal.step, Step::P(6));
        assert!(denial.fix.contains(fix), "{}", denial.fix);
    }
}

#[test]
fn what_is_out_of_scope_is_denied() {
    let policy = policy();
    let step = |demand: &Demand<'_>| denied(&policy, |_| (), demand).refusal.step;
    assert_eq!(step(&Demand { artifact: Some(&[9; 32]), ..demand() }), Step::P(7));
    assert_eq!(step(&Demand { recipient: Some(&[9; 32]), ..demand() }), Step::P(8));
    let model = |name, version| {
        let appraised = policy.appraise(&evidence(), &demand()).unwrap();
        appraised.model(&unsigned(name, version)).map(|_| ()).map_err(|d| d.refusal.step)
    };
    assert_eq!(model("other", 3), Err(Step::P(9)));
    assert_eq!(model("minilm", 2), Err(Step::P(10)));
    assert_eq!(model("minilm", 4), Ok(()));
}

/// A publisher's key, and what a policy has of it.
fn signer(seed: u64) -> (PublisherKey, Signer) {
    let key = PublisherKey::generate(&mut mvault_tests::rng(seed));
    let signer = Signer::new(key.public());
    (key, signer)
}

#[test]
fn models_of_other_signers_are_denied() {
    let ((ours, our_signer), (theirs, their_signer)) = (signer(1), signer(2));
    let demanding = |all: &[&Signer]| {
        let texts: Vec<_> = all.iter().map(|signer| format!("\"{}\"", signer.text())).collect();
        Policy::parse(file().replace("[scope]", &format!("[scope]\nsigners = [{}]", texts.join(", "))).as_bytes())
            .unwrap()
    };
    let sealed = |key| {
        let options = SealOptions { sign: key, model_version: 3, ..mvault_tests::artifact::options("minilm") };
        let to = mvault_tests::artifact::identity(1);
        let (file, _) =
            mvault_tests::artifact::seal_files(&[("m", b"weights")], &[to.recipient()], &options, 1).unwrap();
        Header::read(&mut &file[..]).unwrap()
    };
    let judge = |policy: &Policy, header: &Header, version| {
        let section = header.signature();
        let signature = section.as_ref().map(|section| (header.prelude(), section));
        let appraised = policy.appraise(&evidence(), &demand()).unwrap();
        appraised.model(&Model { name: "minilm", version, signature })
    };
    let (signed, foreign) = (sealed(Some(&ours)), sealed(Some(&theirs)));
    let section = signed.signature().unwrap();
    let of_ours = Signed { signer: *our_signer.id(), payload: section.payload.digest };
    for policy in [demanding(&[&our_signer]), demanding(&[&their_signer, &our_signer])] {
        assert_eq!(judge(&policy, &signed, 3).unwrap().signed(), Some(&of_ours));
    }
    assert_eq!(judge(&policy(), &signed, 3).unwrap().signed(), None);
    let mut forged = signed.unpadded().to_vec();
    let at = forged.windows(32).position(|w| w == section.payload.digest).unwrap();
    forged[at] ^= 1;
    let forged = Header::parse_unpadded(&forged).unwrap();
    for (header, version, found) in [
        (&foreign, 3, crate::nitro::hex(their_signer.id())),
        (&sealed(None), 3, "no signature".into()),
        (&forged, 3, "a signature of that key that does not verify".into()),
        (&signed, 4, "its signature of another name or version than minilm version 4".into()),
    ] {
        let denial = judge(&demanding(&[&our_signer]), header, version).unwrap_err();
        assert_eq!((denial.refusal.step, denial.refusal.actual), (Step::P(11), found));
        assert!(denial.policy_line.starts_with("prod:8: signers = ["), "{}", denial.policy_line);
    }
}

/// One change to a good file each.
#[test]
fn files_that_are_no_policy_are_refused_with_their_line() {
    let good = file();
    let zeros = "00".repeat(48);
    let a0 = crate::nitro::hex(&pcr(0xA0));
    let last_release = good.split("[[release]]").last().unwrap().to_owned();
    let cases: Vec<(&str, String, usize)> = vec![
        ("zero_pcr0", good.replace(&a0, &zeros), 14),
        ("zero_pcr8", format!("{good}pcr8 = \"{zeros}\"\n"), 17),
        ("sha256_pcr", good.replace(&a0, &a0[..64]), 14),
        ("no_hex", good.replace(&a0, &a0.replace('a', "g")), 14),
        ("odd_hex", good.replace(&a0, &a0[1..]), 14),
        ("version_2", good.replace("version = 1\nname", "version = 2\nname"), 1),
        ("bad_name", good.replace("\"prod\"", "\"Prod x\""), 2),
        ("other_platform", good.replace("aws-nitro", "sev-snp"), 3),
        ("age_zero", good.replace("max_age_s = 300", "max_age_s = 0"), 4),
        ("age_over", good.replace("max_age_s = 300", "max_age_s = 86401"), 4),
        ("age_negative", good.replace("max_age_s = 300", "max_age_s = -1"), 4),
        ("model_version_zero", good.replace("minimum_model_version = 3", "minimum_model_version = 0"), 5),
        ("unknown_key", good.replace("max_age_s = 300", "max_age_s = 300\nnonce = false"), 5),
        ("duplicate_key", good.replace("max_age_s = 300", "max_age_s = 300\nmax_age_s = 400"), 5),
        ("empty_scope", good.replace("[\"minilm\"]", "[]"), 9),
        ("twice_in_scope", good.replace("[\"minilm\"]", "[\"minilm\", \"minilm\"]"), 9),
        ("bad_artifact", good.replace(&crate::nitro::hex(&[1; 32]), "0101"), 8),
        ("pcr_missing", good.replace("pcr1 =", "#pcr1 ="), 12),
        ("pcr_unknown", format!("{good}pcr5 = \"{a0}\"\n"), 17),
        ("name_twice", format!("{good}\n[[release]]{last_release}"), 19),
        ("same_measurements", format!("{good}\n[[release]]{}", last_release.replace("1.4.0", "1.4.1")), 19),
        ("no_time", format!("{good}not_after = \"tomorrow\"\n"), 17),
        (
            "times_crossed",
            format!("{good}not_before = \"2027-01-01T00:00:00Z\"\nnot_after = \"2026-01-01T00:00:00Z\"\n"),
            13,
        ),
        ("no_toml", "version = ".into(), 1),
        ("no_release", good.split("[[release]]").next().unwrap().into(), 1),
        ("too_long", format!("{good}#{}", "x".repeat(MAX_FILE)), 0),
    ];
    assert!(Policy::parse(good.as_bytes()).is_ok());
    for (name, text, line) in cases {
        let error = Policy::parse(text.as_bytes()).map(|_| ()).expect_err(name);
        assert_eq!((error.refusal.step, error.line), (Step::P(1), line), "{name}: {error}");
    }
    assert!(Policy::parse(&[0xFF, 0xFE]).is_err());
}

#[test]
fn drafts_are_read_back() {
    let release = policy().releases()[0].clone();
    let draft = |name: &str, models: &[&str]| Draft {
        name: name.into(),
        max_age_s: 60,
        minimum_model_version: Some(2),
        artifacts: vec![],
        models: models.iter().map(|m| (*m).to_owned()).collect(),
        recipients: vec![],
        signers: vec![],
        releases: vec![DraftRelease { release: release.clone(), comment: "from a\nb".into() }],
    };
    let odd = ["quote \" and \\ and tab\t", "\u{e9}"];
    let read = Policy::parse(draft("p", &odd).text().unwrap().as_bytes()).unwrap();
    assert_eq!(read.releases(), std::slice::from_ref(&release));
    assert_eq!(read.scope().models.as_deref(), Some(&odd.map(str::to_owned)[..]));
    assert!(draft("No Name", &[]).text().is_err());
    let mut debug = draft("p", &[]);
    debug.releases[0].release.pcrs.insert(2, [0; 48]);
    assert_eq!(debug.text().unwrap_err().refusal.actual, "zeros");
}

#[test]
fn kernel_of_another_release_is_named() {
    let hex = crate::nitro::hex;
    let of = |byte| hex(&pcr(byte));
    let second = format!(
        "{}\n[[release]]\nname = \"1.5.0\"\npcr0 = \"{}\"\npcr1 = \"{}\"\npcr2 = \"{}\"\n",
        file(),
        of(0xB0),
        of(0xB1),
        of(0xB2)
    );
    let both = Policy::parse(second.as_bytes()).unwrap();
    let denial = denied(&both, |e| (e.pcrs[0], e.pcrs[1]) = (Some(pcr(0xEE)), Some(pcr(0xB1))), &demand());
    assert!(denial.fix.contains("the application of 1.4.0 on the kernel of release 1.5.0"), "{}", denial.fix);
}

#[test]
fn six_differing_pcrs_are_all_shown() {
    let more = [3, 4, 8].map(|i| format!("pcr{i} = \"{}\"\n", crate::nitro::hex(&pcr(0xC0)))).concat();
    let policy = Policy::parse(format!("{}{more}", file()).as_bytes()).unwrap();
    let denial = denied(&policy, |e| e.pcrs = [Some(pcr(0xFF)); MAX_PCRS], &demand());
    for i in PCRS {
        assert!(denial.refusal.expected.contains(&format!("PCR{i} ")), "{denial}");
        assert!(denial.refusal.actual.contains(&format!("PCR{i} {}", crate::nitro::hex(&pcr(0xFF)))), "{denial}");
    }
}

#[test]
fn differences_are_named_by_key() {
    let before = policy();
    let later = file().replace("max_age_s = 300", "max_age_s = 60").replace("\"1.4.0\"", "\"1.4.1\"");
    let after = Policy::parse(later.as_bytes()).unwrap();
    let keys: Vec<_> = before.differences(&after).into_iter().map(|d| d.key).collect();
    let of = |name: &str| (0..3).map(|i| format!("release.{name}.pcr{i}")).collect::<Vec<_>>();
    assert_eq!(keys, [vec!["max_age_s".to_owned()], of("1.4.0"), of("1.4.1")].concat());
    let commented = Policy::parse(format!("# new\n{}", file()).as_bytes()).unwrap();
    assert_eq!(before.differences(&commented), []);
    assert_ne!(before.digest(), commented.digest());
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn a_pcr() -> impl Strategy<Value = Pcr> {
        prop::collection::vec(any::<u8>(), 48)
            .prop_map(|v| v.try_into().unwrap())
            .prop_filter("debug", |p| *p != [0; 48])
    }

    fn a_release() -> impl Strategy<Value = Release> {
        let optional = prop::collection::btree_map(prop::sample::select(vec![3u8, 4, 8]), a_pcr(), 0..=3);
        let times = (prop::option::of(0..2_000_000_000u64), prop::option::of(2_000_000_001..4_000_000_000u64));
        ("[!-~]{1,64}", prop::array::uniform3(a_pcr()), optional, times).prop_map(|(name, image, mut pcrs, times)| {
            pcrs.extend((0..3).zip(image));
            Release { name, pcrs, not_before_s: times.0, not_after_s: times.1 }
        })
    }

    fn signers() -> impl Strategy<Value = Vec<Signer>> {
        prop::collection::btree_set(any::<u64>(), 0..3)
            .prop_map(|seeds| seeds.into_iter().map(|seed| signer(seed).1).collect())
    }

    fn a_draft() -> impl Strategy<Value = Draft> {
        let ids = || prop::collection::btree_set("[0-9a-f]{64}", 0..4).prop_map(|s| s.into_iter().collect::<Vec<_>>());
        let models = prop::collection::btree_set("\\PC{1,40}|[\\x00-\\x7f]{1,20}", 0..4);
        let releases = prop::collection::vec((a_release(), "\\PC{0,40}|[\\x00-\\x7f]{0,20}"), 1..5);
        let numbers = (1..=MAX_AGE_S, prop::option::of(1..=i64::MAX as u64));
        ("[a-z0-9._-]{1,64}", numbers, ids(), models, ids(), signers(), releases).prop_map(
            |(name, numbers, a, models, r, signers, releases)| Draft {
                name,
                max_age_s: numbers.0,
                minimum_model_version: numbers.1,
                artifacts: a,
                models: models.into_iter().collect(),
                recipients: r,
                signers,
                releases: releases.into_iter().map(|(release, comment)| DraftRelease { release, comment }).collect(),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn what_is_written_is_read_back_equal(draft in a_draft()) {
            let names: std::collections::BTreeSet<_> = draft.releases.iter().map(|r| &r.release.name).collect();
            prop_assume!(names.len() == draft.releases.len());
            let text = draft.text().unwrap();
            let read = Policy::parse(text.as_bytes()).unwrap();
            prop_assert_eq!((read.name(), read.max_age_s()), (&*draft.name, draft.max_age_s));
            prop_assert_eq!(read.minimum_model_version(), draft.minimum_model_version);
            let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
            let ids = |list: &[String]| some(list).map(|l| l.iter().map(|id| parse_id(id).unwrap()).collect::<Vec<_>>());
            let wanted = Scope { artifacts: ids(&draft.artifacts), models: some(&draft.models), recipients: ids(&draft.recipients), signers: (!draft.signers.is_empty()).then(|| draft.signers.clone()) };
            prop_assert_eq!(read.scope(), &wanted);
            let releases: Vec<_> = draft.releases.into_iter().map(|r| r.release).collect();
            prop_assert_eq!(read.releases(), releases);
        }

        #[test]
        fn evidence_matches_only_its_own_pcrs(release in a_release(), change in any::<prop::sample::Index>(), with in a_pcr()) {
            let release = Release { not_before_s: None, not_after_s: None, ..release };
            let draft = Draft {
                name: "p".into(), max_age_s: 300, minimum_model_version: None, artifacts: vec![], models: vec![],
                recipients: vec![], signers: vec![], releases: vec![DraftRelease { release: release.clone(), comment: String::new() }],
            };
            let policy = Policy::parse(draft.text().unwrap().as_bytes()).unwrap();
            let mut right = evidence();
            release.pcrs.iter().for_each(|(&i, pcr)| right.pcrs[usize::from(i)] = Some(*pcr));
            prop_assert!(policy.appraise(&right, &demand()).is_ok());
            let indexes: Vec<_> = release.pcrs.keys().copied().collect();
            let index = *change.get(&indexes);
            prop_assume!(release.pcrs[&index] != with);
            right.pcrs[usize::from(index)] = Some(with);
            prop_assert_eq!(policy.appraise(&right, &demand()).unwrap_err().refusal.step, Step::P(5));
            prop_assert!(policy.appraise(&evidence(), &demand()).is_err());
        }
    }
}
