//! Asking AWS KMS for a DEK, with evidence: docs/KEY_RELEASE.md section 9. TLS ends here, the key and its CAs are pinned, and the parent's
//! credentials sign requests and do nothing else.
//!
//! One action of a protocol of JSON over HTTP: the SDK would bring its own network and clock, which an enclave does not have.

use crate::connect::{Dial, agent, failure};
use crate::release::{Attester, Obligations, ReleaseError, ReleasedKey, Source};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64ct::{Base64, Encoding};
use rand_core::CryptoRng;
use rustls::time_provider::TimeProvider;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use ureq::Agent;
use ureq::http::Uri;
use vault_attest::kms::{Answer, RecipientKey};
use vault_attest::{Refusal, Step};
use vault_core::header::Header;
use vault_core::recipient::aws_kms::{KeyArn, MAX_ASKED, Stanza, context};
use vault_core::recipient::broker::Released;

/// Most bytes of what the parent says on the port of credentials.
pub const MAX_CREDENTIALS: u64 = 8 * 1024;
/// Most bytes of an answer of KMS: a CiphertextForRecipient of 8 KiB in base64, and names.
const MAX_ANSWER: u64 = 16 * 1024;
const MEDIA_TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "TrentService.Decrypt";

/// The KMS key that is asked about, and nothing that anyone could change from outside: part of what is measured.
#[derive(Debug, Clone)]
pub struct PinnedKms {
    /// Whatever a header says, only this.
    pub key: KeyArn,
    /// `https://HOST[:PORT]`.
    pub url: String,
    /// CAs that may have signed KMS's certificate, PEM.
    pub ca_pem: Vec<u8>,
}

/// `https://kms.REGION.amazonaws.com`, or what the key's partition has in its place.
pub fn default_url(key: &KeyArn) -> String {
    let suffix = if key.partition() == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://kms.{}.{suffix}", key.region())
}

/// A client of one KMS key.
pub struct KmsClient {
    pinned: PinnedKms,
    agent: Agent,
    /// Where the parent says its credentials.
    parent: Arc<dyn Dial>,
    clock: Arc<dyn TimeProvider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

impl Said {
    /// Whether they can stand in a header.
    fn is_plain(&self) -> bool {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        plain(&self.access_key_id) && plain(&self.secret_access_key) && self.session_token.as_deref().is_none_or(plain)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    key_id: Option<String>,
    plaintext: Option<String>,
    ciphertext_for_recipient: Option<String>,
}

#[derive(Deserialize)]
struct Failed {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(default, alias = "Message")]
    message: String,
}

impl KmsClient {
    /// Over connections of `kms`, with credentials that `parent` says; the clock judges KMS's certificate and dates requests.
    pub fn new(
        pinned: PinnedKms,
        kms: Arc<dyn Dial>,
        parent: Arc<dyn Dial>,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, ReleaseError> {
        let agent = agent(&pinned.url, &pinned.ca_pem, kms, Arc::clone(&clock)).map_err(ReleaseError::Pinned)?;
        Ok(Self { pinned, agent, parent, clock })
    }

    /// Asks for the DEK of an artifact: about its stanzas of the pinned key, in their order, at most sixteen `[F-40]`.
    pub fn request_key(
        &self,
        header: &Header,
        attester: &mut dyn Attester,
        rng: &mut dyn CryptoRng,
    ) -> Result<ReleasedKey, ReleaseError> {
        let salt = &header.prelude().salt;
        let of_key = |section| {
            let stanza = Stanza::parse(section).filter(|stanza| stanza.arn == self.pinned.key);
            stanza.map(|stanza| (section, stanza))
        };
        let mut last = None;
        for (section, stanza) in header.stanzas().filter_map(of_key).take(MAX_ASKED) {
            match self.decrypt(salt, stanza.blob, attester, rng) {
                // Of another artifact: there may be another stanza.
                Err(error @ ReleaseError::Kms { .. }) if error.is_other_ciphertext() => last = Some(error),
                Err(error) => return Err(error),
                Ok((data_key, request)) => {
                    if let Some(dek) = stanza.unwrap_dek(salt, &data_key) {
                        let released = Released::new(section.clone(), dek);
                        let opens = header.unlock(&[&released]).is_ok(); // F-7, F-8
                        let source = Source::Kms { request };
                        return if opens {
                            Ok(ReleasedKey::new(released, Obligations::default(), source))
                        } else {
                            Err(self.no_stanza())
                        };
                    }
                    last = None;
                }
            }
        }
        Err(last.unwrap_or_else(|| self.no_stanza()))
    }

    fn no_stanza(&self) -> ReleaseError {
        ReleaseError::NoStanza { key: self.pinned.key.to_string() }
    }

    /// The data key in `blob` `[C-1]` to `[C-19]`, and the id of the request.
    fn decrypt(
        &self,
        salt: &[u8; 32],
        blob: &[u8],
        attester: &mut dyn Attester,
        rng: &mut dyn CryptoRng,
    ) -> Result<(vault_core::secret::Secret, String), ReleaseError> {
        let own = RecipientKey::generate()?;
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let bound = binding(&nonce, own.public_key_der());
        let evidence = attester.attest(&nonce, &bound, Some(own.public_key_der())).map_err(ReleaseError::Attester)?;
        let encryption_context: BTreeMap<_, _> = context(salt).into_iter().collect();
        let body = json!({
            "KeyId": self.pinned.key.as_str(),
            "CiphertextBlob": Base64::encode_string(blob),
            "EncryptionContext": encryption_context,
            "Recipient": {
                "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                "AttestationDocument": Base64::encode_string(&evidence),
            },
        });
        let (request, answer) = self.post(&body.to_string())?;
        let refuse = |what: &str| Refusal::new(Step::C(4), what.to_owned(), "the answer of Decrypt", "something else");
        let answer: Decrypted = serde_json::from_slice(&answer).map_err(|_| refuse("answer"))?;
        let for_recipient = answer.ciphertext_for_recipient.unwrap_or_default();
        let for_recipient = Base64::decode_vec(&for_recipient).map_err(|_| refuse("CiphertextForRecipient"))?;
        let data_key = own.receive(
            &self.pinned.key,
            &Answer {
                key_id: answer.key_id.as_deref(),
                plaintext: answer.plaintext.as_deref().map(str::as_bytes), // that it is there is enough [C-2]
                ciphertext_for_recipient: Some(&for_recipient),
            },
        )?;
        Ok((data_key, request))
    }

    /// Sends a signed request; gives the request's id and the body of a 200.
    fn post(&self, body: &str) -> Result<(String, Vec<u8>), ReleaseError> {
        let credentials = self.credentials()?;
        let url = format!("{}/", self.pinned.url);
        let mut headers =
            vec![("content-type".to_owned(), MEDIA_TYPE.to_owned()), ("x-amz-target".into(), TARGET.into())];
        headers.extend(self.signature(&url, &headers, body, credentials)?);
        let request = headers.iter().fold(self.agent.post(&url), |request, (name, value)| request.header(name, value));
        let mut answer = request.send(body).map_err(|e| failure(&self.pinned.url, &e))?;
        let status = answer.status().as_u16();
        let id = answer.headers().get("x-amzn-requestid").and_then(|id| id.to_str().ok());
        let id: String = id.unwrap_or("none").chars().filter(char::is_ascii_graphic).take(64).collect();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let body = body.map_err(|e| failure(&self.pinned.url, &e))?;
        if status == 200 { Ok((id, body)) } else { Err(refused(status, id, &body)) }
    }

    /// What the parent has now: they may be new at each request.
    fn credentials(&self) -> Result<Credentials, ReleaseError> {
        let none = |why: String| ReleaseError::Credentials(why);
        let mut stream = self.parent.dial().map_err(|e| none(format!("the parent says none: {e}")))?;
        let mut said = Vec::new();
        stream.as_mut().take(MAX_CREDENTIALS).read_to_end(&mut said).map_err(|e| none(e.to_string()))?;
        let said = serde_json::from_slice::<Said>(&said).ok().filter(Said::is_plain);
        let said = said.ok_or_else(|| {
            none("what the parent says is not access_key_id, secret_access_key, session_token".into())
        })?;
        Ok(Credentials::new(said.access_key_id, said.secret_access_key, said.session_token, None, "the parent"))
    }

    /// The headers that sign a request (SigV4).
    fn signature(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: &str,
        credentials: Credentials,
    ) -> Result<Vec<(String, String)>, ReleaseError> {
        let now_s = self.clock.current_time().map(|now| now.as_secs()).unwrap_or_default();
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.pinned.key.region())
            .name("kms")
            .time(UNIX_EPOCH + Duration::from_secs(now_s))
            .settings(SigningSettings::default())
            .build();
        // Nothing of the credentials is in these errors: they name fields and characters' places.
        let failed = |e: &dyn std::fmt::Display| ReleaseError::Credentials(format!("they do not sign a request: {e}"));
        let parameters = parameters.map_err(|e| failed(&e))?.into();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let request = SignableRequest::new("POST", url, headers, SignableBody::Bytes(body.as_bytes()));
        let signed = sign(request.map_err(|e| failed(&e))?, &parameters).map_err(|e| failed(&e))?;
        let (instructions, _) = signed.into_parts();
        Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

/// What user_data of evidence for KMS is.
fn binding(nonce: &[u8; 32], public_key: &[u8]) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(b"mvault/aws-kms/v1");
    hash.chain_update(nonce).chain_update(public_key).finalize().into()
}

/// KMS's own error, or whatever came in its place.
fn refused(status: u16, request: String, body: &[u8]) -> ReleaseError {
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
    match serde_json::from_slice::<Failed>(body) {
        Ok(Failed { kind, message }) => {
            let code = kind.rsplit('#').next().unwrap_or_default();
            ReleaseError::Kms { code: plain(code), message: plain(&message), request }
        }
        Err(_) => ReleaseError::Status { who: "AWS KMS", status, message: plain(&String::from_utf8_lossy(body)) },
    }
}

/// `https://HOST[:PORT]` and nothing behind it.
pub(crate) fn is_url(url: &str) -> bool {
    crate::connect::host_of(url).is_some() && url.parse::<Uri>().is_ok()
}
