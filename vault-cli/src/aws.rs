//! Where AWS is, as the command line says it. Environment and profiles count as in every AWS tool; flags go before
//! them. Nothing is sent, and no credential is looked for, before a verb asks for the connection.

use crate::error::CliError;
use crate::output::Output;
use std::path::PathBuf;
use std::sync::OnceLock;
use vault_store::aws::{Aws, AwsOptions};

/// Flags of the verbs that may talk to S3 or AWS KMS.
#[derive(clap::Args)]
#[command(next_help_heading = "AWS")]
pub struct AwsArgs {
    /// S3 server that is not AWS's own [env: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    endpoint_url: Option<String>,
    /// KMS server that is not AWS's own [env: AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    kms_endpoint_url: Option<String>,
    /// The region, where the name of a key does not say it [env: AWS_REGION]
    #[arg(long, value_name = "REGION", hide_short_help = true)]
    region: Option<String>,
    /// The profile of ~/.aws to use [env: AWS_PROFILE]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    profile: Option<String>,
    /// Also trust the CAs in this PEM file [env: AWS_CA_BUNDLE]
    #[arg(long, value_name = "PEM", hide_short_help = true)]
    ca_bundle: Option<PathBuf>,
    /// https://host/bucket/key also where it is AWS's own S3
    #[arg(long, hide_short_help = true)]
    path_style: bool,
    /// Allow plain http to other machines: whoever is in between sees and changes requests
    #[arg(long, hide_short_help = true)]
    dangerous_plain_http: bool,
    #[arg(skip)]
    connected: OnceLock<Aws>,
}

impl AwsArgs {
    /// What was said, for vault-store.
    pub fn options(&self) -> AwsOptions {
        AwsOptions {
            endpoint_url: self.endpoint_url.clone(),
            kms_endpoint_url: self.kms_endpoint_url.clone(),
            region: self.region.clone(),
            profile: self.profile.clone(),
            ca_bundle: self.ca_bundle.clone(),
            path_style: self.path_style,
            dangerous_plain_http: self.dangerous_plain_http,
        }
    }

    /// The connection: one a process, made when it is first asked for.
    pub fn connect(&self, out: &Output) -> Result<Aws, CliError> {
        if let Some(aws) = self.connected.get() {
            return Ok(aws.clone());
        }
        if self.dangerous_plain_http {
            out.warning("--dangerous-plain-http: requests may leave this machine without TLS");
        }
        let aws = Aws::connect(&self.options())?;
        Ok(self.connected.get_or_init(|| aws).clone())
    }
}
