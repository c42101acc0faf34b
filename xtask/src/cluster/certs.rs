//! The certificates of a cluster: one authority, made anew for every start and gone with it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::network::{API_SERVICE, Subnet};

/// Signs the certificates of one cluster and writes them to `dir` as `NAME.crt` and `NAME.key`.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    /// The authority's own certificate, PEM.
    pub certificate: String,
}

/// A client's certificate and key, PEM.
#[derive(Clone)]
pub struct ClientCertificate {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// Makes the authority (`ca.crt`, `ca.key`) and the key pair that signs service account tokens
    /// (`service-account.pub`, `service-account.key`).
    pub fn create(dir: &Path) -> Result<Self> {
        let mut params = parameters("sealpod-cluster-ca", None, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        write_private(&dir.join("ca.crt"), &certificate)?;
        write_private(&dir.join("ca.key"), &key.serialize_pem())?;
        let tokens = KeyPair::generate()?;
        write_private(&dir.join("service-account.key"), &tokens.serialize_pem())?;
        write_private(&dir.join("service-account.pub"), &tokens.public_key_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            dir: dir.to_path_buf(),
            certificate,
        })
    }

    /// The certificates of the two components that serve TLS: the API server and the kubelet.
    pub fn issue_servers(&self, node: &str, subnet: Subnet) -> Result<()> {
        let (address, service) = (subnet.node().to_string(), API_SERVICE.to_string());
        let api_server = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            &address,
            &service,
        ];
        self.issue(
            "kube-apiserver",
            "kube-apiserver",
            None,
            &api_server,
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        self.issue(
            "kubelet-serving",
            &format!("system:node:{node}"),
            Some("system:nodes"),
            &[node, &address],
            ExtendedKeyUsagePurpose::ServerAuth,
        )?;
        Ok(())
    }

    /// A certificate that makes its holder `user` of `group` for the API server (and the API server for the kubelet).
    pub fn issue_client(&self, file: &str, user: &str, group: Option<&str>) -> Result<ClientCertificate> {
        self.issue(file, user, group, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        file: &str,
        common_name: &str,
        organization: Option<&str>,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<ClientCertificate> {
        let mut params = parameters(common_name, organization, names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        write_private(&self.dir.join(format!("{file}.crt")), &certificate)?;
        write_private(&self.dir.join(format!("{file}.key")), &key)?;
        Ok(ClientCertificate { certificate, key })
    }
}

fn parameters(common_name: &str, organization: Option<&str>, names: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    // Long past and far off: a machine whose clock is wrong, or a test that moves it, is no reason to fail.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params)
}

fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_file_that_components_name_is_made_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        authority.issue_servers("node", Subnet::DEFAULT).unwrap();
        let admin = authority
            .issue_client("admin", "admin", Some("system:masters"))
            .unwrap();
        assert!(admin.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        for file in [
            "ca.crt",
            "ca.key",
            "service-account.pub",
            "kube-apiserver.key",
            "kubelet-serving.crt",
            "admin.key",
        ] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
