//! Encrypts a TCP connection and binds it to the keys of both peers: TLS 1.3 as [libp2p](https://github.com/libp2p/specs/blob/master/tls/tls.md) uses it, in the same way as QUIC does.
//!
//! Always true: whoever is handed out as the other peer has proved in this very handshake, on both sides, that it holds the peer's key; nothing is resumed from an earlier connection.
//!
//! libp2p's own upgrade is the same but for the order of the ciphers, which it does not let anybody choose: it asks for ChaCha20 before AES, which takes twice as long where the processor has
//! instructions for AES. Certificates are made and checked by libp2p.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::tls::certificate;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, SupportedCipherSuite,
};

/// As every libp2p peer calls it.
const NAME: &str = "/tls/1.0.0";
/// What is spoken inside, for those in between.
const INSIDE: &[u8] = b"libp2p";

/// Agrees on TLS.
#[derive(Clone, Debug)]
pub(crate) struct Encryption {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// A connection that is encrypted.
pub(crate) type Encrypted<C> = TlsStream<C>;

impl Encryption {
    /// With a certificate that proves these keys.
    pub(crate) fn new(keys: &Keypair) -> Result<Self, Error> {
        let (certificate, key) = certificate::generate(keys).map_err(|error| Error::General(error.to_string()))?;
        let proof = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], aws_lc_rs::sign::any_ecdsa_type(&key)?)));
        let provider = Arc::new(CryptoProvider { cipher_suites: ciphers(has_aes()), ..aws_lc_rs::default_provider() });
        let judge = Arc::new(Judge { provider: Arc::clone(&provider) });
        let versions = &[&rustls::version::TLS13];
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&judge) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::clone(&proof) as _);
        client.alpn_protocols = vec![INSIDE.to_vec()];
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(judge)
            .with_cert_resolver(proof);
        server.alpn_protocols = vec![INSIDE.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// Whether this processor has instructions for AES and for what GCM multiplies with.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// All of TLS 1.3; the peer that dials has the choice.
fn ciphers(aes_first: bool) -> Vec<SupportedCipherSuite> {
    use aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    let mut ciphers = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    if !aes_first {
        ciphers.rotate_right(1);
    }
    ciphers
}

/// Checks what the other side shows: one certificate, signed by itself, in which its peer's key vouches for it.
#[derive(Debug)]
struct Judge {
    provider: Arc<CryptoProvider>,
}

impl Judge {
    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn check(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
    if !others.is_empty() {
        return Err(Error::General("a libp2p peer shows exactly one certificate".to_owned()));
    }
    certificate::parse(certificate)?;
    Ok(())
}

fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// Cannot be: only TLS 1.3 is offered.
fn refuse_older() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("libp2p does not speak TLS 1.2".to_owned()))
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_older()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_older()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Who is at the other end.
fn peer_of(state: &CommonState) -> io::Result<PeerId> {
    let shown = state.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the peer showed no certificate"))?;
    certificate::parse(shown).map(|certificate| certificate.peer_id()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl UpgradeInfo for Encryption {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(NAME)
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Encryption {
    type Output = (PeerId, Encrypted<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, io: C, _: &'static str) -> Self::Future {
        async move {
            let stream = TlsAcceptor::from(self.server).accept(io).await?;
            Ok((peer_of(stream.get_ref().1)?, stream.into()))
        }
        .boxed()
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Encryption {
    type Output = (PeerId, Encrypted<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, io: C, _: &'static str) -> Self::Future {
        async move {
            // An address in place of a name, so that no name is sent: the specification forbids one.
            let nobody = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
            let stream = TlsConnector::from(self.client).connect(nobody, io).await?;
            Ok((peer_of(stream.get_ref().1)?, stream.into()))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt};
    use libp2p::tls;
    use rustls::CipherSuite;
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

    use super::*;

    type Io = Compat<tokio::io::DuplexStream>;

    fn wire() -> (Io, Io) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        (near.compat(), far.compat())
    }

    async fn shaken(near: Encryption, far: Encryption) -> (io::Result<(PeerId, Encrypted<Io>)>, io::Result<(PeerId, Encrypted<Io>)>) {
        let (dialling, listening) = wire();
        tokio::join!(near.upgrade_outbound(dialling, NAME), far.upgrade_inbound(listening, NAME))
    }

    #[tokio::test]
    async fn each_side_learns_whose_key_the_other_holds_and_bytes_go_both_ways() {
        let (near, far) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (dialled, heard) = shaken(Encryption::new(&near).unwrap(), Encryption::new(&far).unwrap()).await;
        let ((dialled, mut near_io), (heard, mut far_io)) = (dialled.unwrap(), heard.unwrap());
        assert_eq!((dialled, heard), (far.public().to_peer_id(), near.public().to_peer_id()));
        let mut text = *b"there";
        near_io.write_all(&text).await.unwrap();
        near_io.flush().await.unwrap();
        far_io.read_exact(&mut text).await.unwrap();
        far_io.write_all(b"again").await.unwrap();
        far_io.flush().await.unwrap();
        assert_eq!(&text, b"there");
        near_io.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"again");
    }

    #[tokio::test]
    async fn aes_is_what_is_agreed_on_where_both_have_it_and_no_connection_is_resumed() {
        assert_eq!(ciphers(true)[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(ciphers(false)[0].suite(), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        let keys = Keypair::generate_ed25519();
        let (near, far) = (Encryption::new(&keys).unwrap(), Encryption::new(&Keypair::generate_ed25519()).unwrap());
        for _ in 0..2 {
            let (dialled, _heard) = shaken(near.clone(), far.clone()).await;
            let (_, io) = dialled.unwrap();
            let state = io.get_ref().1;
            assert_eq!(state.negotiated_cipher_suite().unwrap().suite(), ciphers(has_aes())[0].suite());
            assert_eq!(state.handshake_kind(), Some(rustls::HandshakeKind::Full));
            assert_eq!(state.alpn_protocol(), Some(INSIDE));
        }
    }

    #[tokio::test]
    async fn it_is_what_every_libp2p_peer_speaks() {
        let (ours, theirs) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let (us, them) = (Encryption::new(&ours).unwrap(), tls::Config::new(&theirs).unwrap());
        let (dialling, listening) = wire();
        let (dialled, heard) = tokio::join!(us.clone().upgrade_outbound(dialling, NAME), them.clone().upgrade_inbound(listening, NAME));
        assert_eq!((dialled.unwrap().0, heard.unwrap().0), (theirs.public().to_peer_id(), ours.public().to_peer_id()));
        let (dialling, listening) = wire();
        let (dialled, heard) = tokio::join!(them.upgrade_outbound(dialling, NAME), us.upgrade_inbound(listening, NAME));
        assert_eq!((dialled.unwrap().0, heard.unwrap().0), (ours.public().to_peer_id(), theirs.public().to_peer_id()));
    }

    type Shown = (CertificateDer<'static>, rustls::pki_types::PrivateKeyDer<'static>);

    fn certificate() -> Shown {
        certificate::generate(&Keypair::generate_ed25519()).unwrap()
    }

    /// Shows these certificates, holding the key of one of them or of none.
    fn showing(shown: &[&CertificateDer<'static>], holding: &Shown) -> Encryption {
        let key = aws_lc_rs::sign::any_ecdsa_type(&holding.1).unwrap();
        let proof = Arc::new(SingleCertAndKey::from(CertifiedKey::new(shown.iter().map(|shown| (*shown).clone()).collect(), key)));
        let mut made = Encryption::new(&Keypair::generate_ed25519()).unwrap();
        Arc::get_mut(&mut made.client).unwrap().client_auth_cert_resolver = Arc::clone(&proof) as _;
        Arc::get_mut(&mut made.server).unwrap().cert_resolver = proof;
        made
    }

    #[tokio::test]
    async fn whoever_does_not_prove_one_key_is_refused_on_either_side() {
        let (own, other) = (certificate(), certificate());
        let mut altered = own.0.to_vec();
        *altered.last_mut().unwrap() ^= 1;
        let altered = CertificateDer::from(altered);
        let nothing = CertificateDer::from(vec![0x30, 0]);
        // The case that has to go through, for the others to mean something.
        let honest = || Encryption::new(&Keypair::generate_ed25519()).unwrap();
        let (dialled, heard) = shaken(honest(), showing(&[&own.0], &own)).await;
        assert!(dialled.is_ok() && heard.is_ok());
        let liars: [(&str, &[&CertificateDer<'static>], &Shown); 4] = [
            ("another's certificate", &[&other.0], &own),
            ("two certificates", &[&own.0, &other.0], &own),
            ("a certificate that was altered", &[&altered], &own),
            ("no certificate", &[&nothing], &own),
        ];
        for (what, shown, holding) in liars {
            let (dialled, _) = shaken(honest(), showing(shown, holding)).await;
            assert!(dialled.is_err(), "dialled, and was shown {what}");
            // Whoever dials has finished before the other one has judged.
            let (_, heard) = shaken(showing(shown, holding), honest()).await;
            assert!(heard.is_err(), "was dialled, and was shown {what}");
        }
    }

    #[tokio::test]
    async fn whoever_dials_without_a_certificate_or_speaks_only_an_older_tls_is_refused() {
        let provider = || Arc::new(aws_lc_rs::default_provider());
        let honest = Encryption::new(&Keypair::generate_ed25519()).unwrap();
        let judge = Arc::new(Judge { provider: provider() });
        for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
            let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
            let client = client.dangerous().with_custom_certificate_verifier(Arc::clone(&judge) as _).with_no_client_auth();
            let (_, heard) = shaken(Encryption { client: Arc::new(client), server: Arc::clone(&honest.server) }, honest.clone()).await;
            assert!(heard.is_err());
        }
    }
}
