//! `mvault iam`: the least that someone needs to be allowed, as IAM policies. Nothing is sent; the policies are made
//! from names alone.

use crate::error::CliError;
use crate::output::Output;
use serde_json::{Value, json};
use vault_core::recipient::aws_kms::KeyArn;

/// Print the IAM policy that a publisher, a puller or a keeper of a vault needs
///
/// S3 only below the vault's prefix and only over TLS; AWS KMS only for keys with the encryption context of an artifact.
/// Attach it to a role or a user. A key of another account must also allow it in its own key policy (--key-policy).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mvault iam --role publisher --vault s3://models/prod --kms arn:aws:kms:eu-west-1:111122223333:key/1234abcd-…
  mvault iam --role puller --vault s3://models/prod --kms arn:… > puller.json
  mvault iam --role keeper --vault s3://models/prod                     may remove versions and payloads
  mvault iam --role puller --kms arn:… --key-policy arn:aws:iam::444455556666:role/serve")]
pub struct Args {
    /// For whom
    #[arg(long, value_enum)]
    role: Role,
    /// The vault: s3://BUCKET or s3://BUCKET/PREFIX
    #[arg(long, value_name = "VAULT", value_parser = parse_vault, required_unless_present = "kms")]
    vault: Option<Vault>,
    /// The key in AWS KMS; may be repeated
    #[arg(long, value_name = "KEY-ARN", value_parser = parse_key)]
    kms: Vec<KeyArn>,
    /// aws, aws-cn or aws-us-gov [default: that of the key, else aws]
    #[arg(long, value_name = "PARTITION", value_parser = ["aws", "aws-cn", "aws-us-gov"])]
    partition: Option<String>,
    /// Print what to add to the key's own policy for this role, user or account instead
    #[arg(long, value_name = "PRINCIPAL-ARN", requires = "kms", conflicts_with = "vault")]
    key_policy: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// Seals and pushes
    Publisher,
    /// Pulls and opens
    Puller,
    /// Removes versions and tags, collects garbage; needs no key
    Keeper,
}

#[derive(Clone)]
struct Vault {
    bucket: String,
    /// Without slashes around it; empty for the whole bucket.
    prefix: String,
}

fn parse_vault(text: &str) -> Result<Vault, String> {
    let rest = text.strip_prefix("s3://").ok_or("expected s3://BUCKET/PREFIX")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(name) {
        return Err(format!("{bucket:?} is not the name of a bucket"));
    }
    // In a policy these would match more than themselves.
    if prefix.contains(['*', '?', '$']) {
        return Err("a prefix with *, ? or $ means something else in a policy".into());
    }
    Ok(Vault { bucket: bucket.into(), prefix: prefix.trim_matches('/').into() })
}

fn parse_key(text: &str) -> Result<KeyArn, String> {
    KeyArn::parse(text)
        .ok_or_else(|| "expected arn:PARTITION:kms:REGION:ACCOUNT:key/ID (policies do not take aliases)".into())
}

pub fn run(args: &Args, out: &mut Output) -> Result<(), CliError> {
    let partition = args.partition.as_deref();
    let of_keys = args.kms.first().map_or("aws", KeyArn::partition);
    let partition = partition.unwrap_or(of_keys);
    if let Some(other) = args.kms.iter().find(|k| k.partition() != partition) {
        return Err(CliError::usage(format!("{other}: not in the partition {partition}")));
    }
    let mut statements = Vec::new();
    if let Some(vault) = &args.vault {
        statements.extend(s3(args.role, vault, partition));
    }
    let kms_actions = kms_actions(args.role);
    if !args.kms.is_empty() && !kms_actions.is_empty() {
        let keys: Vec<_> = args.kms.iter().map(KeyArn::as_str).collect();
        // A key's policy is about that key.
        let resource = if args.key_policy.is_some() { json!("*") } else { json!(keys) };
        statements.push(kms(&kms_actions, &resource, args.key_policy.as_deref()));
    }
    if statements.is_empty() {
        return Err(CliError::usage("a keeper needs no key").hint("name the vault with --vault"));
    }
    if kms_actions.is_empty() && !args.kms.is_empty() {
        out.note("a keeper needs no key: --kms is left out");
    }
    let policy = json!({ "Version": "2012-10-17", "Statement": statements });
    out.bytes(format!("{policy:#}\n").as_bytes())
}

fn kms_actions(role: Role) -> Vec<&'static str> {
    match role {
        // Decrypt: an interrupted push is gone on with by whoever began it.
        Role::Publisher => vec!["kms:GenerateDataKey", "kms:Decrypt"],
        Role::Puller => vec!["kms:Decrypt"],
        Role::Keeper => vec![],
    }
}

/// Data keys only with the encryption context of FORMAT.md 4.3, all of it and no more.
fn kms(actions: &[&str], resource: &Value, principal: Option<&str>) -> Value {
    let mut statement = json!({
        "Sid": "DataKeysOfArtifacts",
        "Effect": "Allow",
        "Action": actions,
        "Resource": resource,
        "Condition": {
            "StringEquals": { "kms:EncryptionContext:mvault": "v1" },
            "Null": { "kms:EncryptionContext:mvault-artifact": "false" },
            "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": ["mvault", "mvault-artifact"] },
        },
    });
    if let (Some(principal), Some(statement)) = (principal, statement.as_object_mut()) {
        statement.insert("Principal".into(), json!({ "AWS": principal }));
    }
    statement
}

fn s3(role: Role, vault: &Vault, partition: &str) -> Vec<Value> {
    let bucket = format!("arn:{partition}:s3:::{}", vault.bucket);
    let (objects, below) = match vault.prefix.as_str() {
        "" => (format!("{bucket}/*"), "*".to_owned()),
        prefix => (format!("{bucket}/{prefix}/*"), format!("{prefix}/*")),
    };
    let on_objects: &[&str] = match role {
        Role::Publisher => &["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
        Role::Puller => &["s3:GetObject"],
        Role::Keeper => &["s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
    };
    let on_bucket =
        |sid: &str, action: &str| json!({ "Sid": sid, "Effect": "Allow", "Action": action, "Resource": bucket });
    let mut listing = on_bucket("VaultListing", "s3:ListBucket");
    if let (false, Some(listing)) = (vault.prefix.is_empty(), listing.as_object_mut()) {
        listing.insert("Condition".into(), json!({ "StringLike": { "s3:prefix": below } }));
    }
    let objects = json!({ "Sid": "VaultObjects", "Effect": "Allow", "Action": on_objects, "Resource": objects });
    let mut statements = vec![objects, listing];
    if role == Role::Keeper {
        // AWS has no condition on the prefix for this one: names of unfinished uploads in all of the bucket are seen.
        statements.push(on_bucket("UnfinishedUploads", "s3:ListBucketMultipartUploads"));
    }
    statements.push(json!({
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Action": "s3:*",
        "Resource": [bucket, format!("{bucket}/*")],
        "Condition": { "Bool": { "aws:SecureTransport": "false" } },
    }));
    statements
}
