//! The command line of the loop, and the client it asks for.

use std::path::PathBuf;

use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::types::ChecksumAlgorithm;

pub const USAGE: &str = "usage: sdk-loop put FILE BUCKET KEY --endpoint-url URL [--part MIB] [--workers N]
                    [--sign-payload yes|no] [--checksum none|crc32|crc32c|crc64nvme|sha256]
       sdk-loop get BUCKET KEY FILE --endpoint-url URL [--part MIB] [--workers N]
       sdk-loop make BUCKET --endpoint-url URL
       sdk-loop clear BUCKET --endpoint-url URL
Keys and region come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION.";

#[derive(Clone, Copy)]
pub enum Verb {
    /// File to object.
    Put,
    /// Object to file.
    Get,
    /// Makes the bucket and puts a first object into it: then the server is ready.
    Make,
    /// Removes every object of the bucket.
    Clear,
}

/// What is moved, and how.
pub struct Options {
    pub verb: Verb,
    pub file: PathBuf,
    pub bucket: String,
    pub key: String,
    /// Bytes a part or a range.
    pub part: usize,
    /// Parts or ranges in flight.
    pub workers: usize,
    /// Whether a part's SHA-256 is signed with its request.
    pub sign: bool,
    /// The checksum sent with each part.
    pub checksum: Option<ChecksumAlgorithm>,
    endpoint: String,
}

impl Options {
    /// # Errors
    /// What is wrong with the command line.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut next = |what: &str| args.next().ok_or_else(|| format!("{what} is missing"));
        let verb = match next("put, get, make or clear")?.as_str() {
            "put" => Verb::Put,
            "get" => Verb::Get,
            "make" => Verb::Make,
            "clear" => Verb::Clear,
            other => return Err(format!("put, get, make or clear, not {other}")),
        };
        let (file, bucket, key) = match verb {
            Verb::Put => (next("FILE")?, next("BUCKET")?, next("KEY")?),
            Verb::Get => {
                let (bucket, key) = (next("BUCKET")?, next("KEY")?);
                (next("FILE")?, bucket, key)
            }
            Verb::Make | Verb::Clear => (String::new(), next("BUCKET")?, String::new()),
        };
        let (part, workers) = (16 << 20, 8);
        let mut options = Self {
            verb,
            file: file.into(),
            bucket,
            key,
            part,
            workers,
            sign: false,
            checksum: None,
            endpoint: String::new(),
        };
        while let Ok(name) = next("an option") {
            options.set(&name, next(&name)?)?;
        }
        if options.endpoint.is_empty() { Err("--endpoint-url is missing".to_owned()) } else { Ok(options) }
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let number = || value.parse::<usize>().ok().filter(|n| *n > 0).ok_or(format!("{name} {value}: not a number"));
        match name {
            "--endpoint-url" => self.endpoint = value,
            "--part" => self.part = number()? << 20,
            "--workers" => self.workers = number()?,
            "--sign-payload" => self.sign = value == "yes",
            "--checksum" if value == "none" => self.checksum = None,
            "--checksum" => {
                self.checksum = Some(ChecksumAlgorithm::try_parse(&value.to_uppercase()).map_err(|e| e.to_string())?);
            }
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    }

    /// A client with these keys and this endpoint, which computes no checksum that nobody asked for.
    ///
    /// # Errors
    /// When an environment variable is missing.
    pub fn client(&self) -> Result<aws_sdk_s3::Client, String> {
        let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
        let (id, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new(id, secret, None, None, "environment"))
            .region(Region::new(variable("AWS_REGION")?))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Ok(aws_sdk_s3::Client::from_conf(config))
    }
}
