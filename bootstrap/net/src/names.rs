//! The names of all protocols spoken on one network.
//!
//! Every one of them contains the network id and ends in the version of that protocol: a peer of another network fails at negotiation,
//! before any byte of ours is parsed. Identify and ping keep their public names; identify's protocol version tells networks apart.

use libp2p::StreamProtocol;
use libp2p::swarm::InvalidProtocol;
use orien_protocol::network::NetworkId;

use crate::streams::StreamKind;

/// Protocol names of one network.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) identify: String,
    pub(crate) kad: StreamProtocol,
    pub(crate) gossip_prefix: String,
    pub(crate) topic: String,
    pub(crate) rpc: StreamProtocol,
    pub(crate) streams: StreamNames,
}

/// Names of the long streams, one per kind.
#[derive(Clone, Debug)]
pub(crate) struct StreamNames {
    names: [(StreamKind, StreamProtocol); 4],
}

impl Names {
    pub(crate) fn new(network: &NetworkId) -> Result<Self, InvalidProtocol> {
        let name = |rest: &str| StreamProtocol::try_from_owned(format!("/orien/{network}/{rest}"));
        Ok(Self {
            identify: format!("/orien/{network}/1"),
            kad: name("kad/1")?,
            gossip_prefix: format!("/orien/{network}/meshsub"),
            topic: format!("/orien/{network}/offers/1"),
            rpc: name("rpc/1")?,
            streams: StreamNames {
                names: [
                    (StreamKind::Control, name("control/1")?),
                    (StreamKind::Log, name("log/1")?),
                    (StreamKind::File, name("file/1")?),
                    (StreamKind::Input, name("input/1")?),
                ],
            },
        })
    }
}

impl StreamNames {
    pub(crate) fn all(&self) -> [StreamProtocol; 4] {
        self.names.each_ref().map(|(_, name)| name.clone())
    }

    pub(crate) fn of(&self, kind: StreamKind) -> StreamProtocol {
        let [control, log, file, input] = &self.names;
        match kind {
            StreamKind::Control => control.1.clone(),
            StreamKind::Log => log.1.clone(),
            StreamKind::File => file.1.clone(),
            StreamKind::Input => input.1.clone(),
        }
    }

    pub(crate) fn kind(&self, name: &StreamProtocol) -> Option<StreamKind> {
        self.names.iter().find(|(_, known)| known == name).map(|(kind, _)| *kind)
    }
}
