//! `aws-kms` and key brokers wherever a recipient or an identity is named. AWS is asked only for what was named so, and only when an
//! artifact has a stanza for it.

use crate::aws::AwsArgs;
use crate::error::CliError;
use crate::output::Output;
use std::ffi::OsString;
use std::path::PathBuf;
use vault_core::Error as CoreError;
use vault_core::header::{Header, Section, section};
use vault_core::keys::Dek;
use vault_core::recipient::aws_kms::{KeyArn, Stanza};
use vault_core::recipient::broker::BrokerRecipient;
use vault_core::recipient::keyfile::{BROKER_PREFIX, decode_broker, decode_recipient};
use vault_core::recipient::xwing::XWingRecipient;
use vault_core::recipient::{Identity, Recipient};
use vault_store::kms::{KeyName, KmsIdentity, KmsRecipient};
use vault_store::{Cause, StoreError};

/// What AWS KMS is called in `-r`, `-i`, recipients files and project files.
const NAME: &str = "aws-kms";

/// A recipient as a line names it.
pub enum Named {
    /// A key file's public line.
    Key(Box<XWingRecipient>),
    /// `aws-kms:KEY`.
    Kms(KeyName),
    /// A key broker and the policy it shall follow.
    Broker(Box<BrokerRecipient>),
}

impl Named {
    /// A recipient's line, `aws-kms:KEY`, or a broker's line with its policy.
    pub fn parse(line: &str) -> Result<Self, CliError> {
        if line.starts_with(BROKER_PREFIX) {
            return Ok(Self::Broker(Box::new(decode_broker(line)?)));
        }
        let Some(rest) = line.strip_prefix(NAME) else { return Ok(Self::Key(Box::new(decode_recipient(line)?))) };
        let key = rest.strip_prefix(':').and_then(KeyName::parse);
        key.map(Self::Kms).ok_or_else(|| {
            CliError::usage(format!("{line}: not a key of AWS KMS"))
                .hint("expected aws-kms: and a key's ARN, an alias' ARN, alias/NAME or a key id")
        })
    }

    /// Whether a stanza says it is for this recipient. An alias does not say for which key it is.
    pub fn is_for(&self, salt: &[u8; 32], stanza: &Section) -> Option<bool> {
        match self {
            Self::Key(key) => Some(key.is_tagged(salt, stanza)),
            Self::Broker(broker) => Some(broker.is_for(salt, stanza)),
            Self::Kms(key) => Stanza::parse(stanza).map_or(Some(false), |stanza| key.names(&stanza.arn)),
        }
    }

    /// To seal for.
    pub fn recipient(&self, aws: &AwsArgs, out: &Output) -> Result<Box<dyn Recipient>, CliError> {
        Ok(match self {
            Self::Key(key) => key.clone(),
            Self::Broker(broker) => broker.clone(),
            Self::Kms(key) => Box::new(KmsRecipient::new(aws.connect(out)?, key.clone())),
        })
    }
}

/// An identity as `-i` names it.
#[derive(Clone)]
pub enum Source {
    /// A key file.
    File(PathBuf),
    /// AWS KMS: whatever key an artifact names, or only this one.
    Kms(Option<KeyArn>),
}

/// For clap.
pub fn parse_source(text: OsString) -> Result<Source, String> {
    let Some(rest) = text.to_str().and_then(|t| t.strip_prefix(NAME)) else { return Ok(Source::File(text.into())) };
    match rest.strip_prefix(':').map(KeyArn::parse) {
        None if rest.is_empty() => Ok(Source::Kms(None)),
        None => Ok(Source::File(text.into())),
        Some(Some(arn)) => Ok(Source::Kms(Some(arn))),
        Some(None) => Err("expected aws-kms, or aws-kms: and a key's ARN (not an alias: anyone may move those)".into()),
    }
}

/// AWS KMS as an identity; connected only for a header that has a stanza for it.
pub struct Kms {
    only: Option<KeyArn>,
    identity: Option<KmsIdentity>,
}

impl Kms {
    /// For the stanzas of this header.
    pub fn connect(only: Option<&KeyArn>, header: &Header, aws: &AwsArgs, out: &Output) -> Result<Self, CliError> {
        let meant = |stanza: Stanza<'_>| only.is_none_or(|only| stanza.arn == *only);
        let needed = header.stanzas().filter_map(Stanza::parse).any(meant);
        let connect = || Ok::<_, CliError>(KmsIdentity::new(aws.connect(out)?, only.cloned()));
        Ok(Self { only: only.cloned(), identity: needed.then(connect).transpose()? })
    }
}

impl Identity for Kms {
    fn unwrap_dek(&self, salt: &[u8; 32], stanza: &Section) -> vault_core::Result<Option<Dek>> {
        self.identity.as_ref().map_or(Ok(None), |i| i.unwrap_dek(salt, stanza))
    }

    fn describe(&self) -> String {
        self.only.as_ref().map_or_else(|| "AWS KMS".into(), |arn| format!("AWS KMS key {arn}"))
    }
}

/// Why nothing opened: what KMS failed at, if it did, else that the artifact is for others.
pub fn why(refused: CoreError, header: &Header, asked: &[Kms], out: &Output) -> CliError {
    let mut failures: Vec<StoreError> =
        asked.iter().filter_map(|k| k.identity.as_ref()).flat_map(KmsIdentity::failures).collect();
    let first = failures.iter().position(|f| f.cause != Cause::OtherCiphertext);
    let why = first.map(|at| failures.remove(at));
    for other in &failures {
        out.warning(&other.to_string());
    }
    let refused = CliError::from(refused);
    let by_broker = header.stanzas().any(|s| s.kind == section::BROKER);
    let unasked = asked.is_empty() && header.stanzas().any(|s| s.kind == section::AWS_KMS);
    match why {
        Some(failure) => failure.into(),
        None if unasked => refused.hint("with access to its key in AWS KMS: -i aws-kms; or give a key with -i FILE"),
        None if by_broker => {
            refused.hint("its key broker gives the key to attested enclaves only (docs/KEY_RELEASE.md)")
        }
        None => refused,
    }
}
