//! The Nitro Secure Module, behind one safe type: docs/ENCLAVE.md E-2, E-9.

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver::{nsm_exit, nsm_init, nsm_process_request};
use vault_attest::nitro::unverified_outline;
use vault_enclave::release::Attester;

/// The PCR that holds the model's identity.
pub const MODEL_PCR: u16 = 16;

/// An open /dev/nsm.
pub struct Nsm(i32);

impl Nsm {
    /// Opens the device.
    pub fn open() -> Result<Self, String> {
        match nsm_init() {
            fd if fd >= 0 => Ok(Self(fd)),
            _ => Err("no /dev/nsm: this is no Nitro Enclave".into()),
        }
    }

    /// Its id, for the journal.
    pub fn module_id(&self) -> Result<String, String> {
        match self.ask(Request::DescribeNSM)? {
            Response::DescribeNSM { module_id, .. } => Ok(module_id),
            _ => Err(unexpected()),
        }
    }

    /// At most 256 bytes of its entropy.
    pub fn random(&self) -> Result<Vec<u8>, String> {
        match self.ask(Request::GetRandom)? {
            Response::GetRandom { random } if !random.is_empty() => Ok(random),
            _ => Err(unexpected()),
        }
    }

    /// PCR0 in hex; zeros in a debug enclave.
    pub fn pcr0(&self) -> Result<Vec<u8>, String> {
        match self.ask(Request::DescribePCR { index: 0 })? {
            Response::DescribePCR { data, .. } => Ok(data),
            _ => Err(unexpected()),
        }
    }

    /// Seconds since 1970 by the hypervisor, which the parent cannot set.
    pub fn now_s(&mut self) -> Result<u64, String> {
        let document = self.document(None, None, None)?;
        // Our own device answered: whoever could forge it runs this machine.
        let time_ms = unverified_outline(&document).time_ms.ok_or_else(unexpected)?;
        Ok(time_ms / 1000)
    }

    /// Extends the model's PCR and locks it.
    pub fn measure_model(&self, measurement: &[u8; 48]) -> Result<(), String> {
        let extend = Request::ExtendPCR { index: MODEL_PCR, data: measurement.to_vec() };
        let (Response::ExtendPCR { .. }, Response::LockPCR) =
            (self.ask(extend)?, self.ask(Request::LockPCR { index: MODEL_PCR })?)
        else {
            return Err(unexpected());
        };
        Ok(())
    }

    fn document(
        &self,
        nonce: Option<&[u8]>,
        user_data: Option<&[u8]>,
        public_key: Option<&[u8]>,
    ) -> Result<Vec<u8>, String> {
        let bytes = |field: Option<&[u8]>| field.map(|bytes| bytes.to_vec().into());
        let (nonce, user_data, public_key) = (bytes(nonce), bytes(user_data), bytes(public_key));
        match self.ask(Request::Attestation { user_data, nonce, public_key })? {
            Response::Attestation { document } => Ok(document),
            _ => Err(unexpected()),
        }
    }

    fn ask(&self, request: Request) -> Result<Response, String> {
        match nsm_process_request(self.0, request) {
            Response::Error(code) => Err(format!("the NSM: {code:?}")),
            response => Ok(response),
        }
    }
}

impl Drop for Nsm {
    fn drop(&mut self) {
        nsm_exit(self.0);
    }
}

impl Attester for Nsm {
    fn attest(&mut self, nonce: &[u8; 32], user_data: &[u8; 32], public_key: Option<&[u8]>) -> Result<Vec<u8>, String> {
        self.document(Some(nonce), Some(user_data), public_key)
    }
}

fn unexpected() -> String {
    "the NSM answers something else than was asked".into()
}
