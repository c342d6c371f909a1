//! What runs inside the enclave. So far: asking a broker for a key (docs/KEY_RELEASE.md section 4, R-20 to R-23).
