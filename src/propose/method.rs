//! Which paths there are, and what a path that is not there is answered with.

use crate::wire::status::{Code, Status};

macro_rules! methods {
    ($($name:ident $service:literal $method:literal;)*) => {
        /// The methods of etcd's gRPC services.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // Each is named after its path.
        pub enum Method {
            $($name,)*
        }

        impl Method {
            /// All methods, in the order of their definition.
            pub const ALL: &'static [Method] = &[$(Method::$name,)*];

            /// The method that a request's `:path` names.
            pub fn of_path(path: &str) -> Option<Method> {
                match path {
                    $(concat!("/", $service, "/", $method) => Some(Method::$name),)*
                    _ => None,
                }
            }

            /// Full name of the service, as metrics label it.
            pub fn service(self) -> &'static str {
                match self {
                    $(Method::$name => $service,)*
                }
            }

            /// Name within the service, as metrics label it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Method::$name => $method,)*
                }
            }
        }
    };
}

methods! {
    Range "etcdserverpb.KV" "Range";
    Put "etcdserverpb.KV" "Put";
    DeleteRange "etcdserverpb.KV" "DeleteRange";
    Txn "etcdserverpb.KV" "Txn";
    Compact "etcdserverpb.KV" "Compact";
    Watch "etcdserverpb.Watch" "Watch";
    LeaseGrant "etcdserverpb.Lease" "LeaseGrant";
    LeaseRevoke "etcdserverpb.Lease" "LeaseRevoke";
    LeaseKeepAlive "etcdserverpb.Lease" "LeaseKeepAlive";
    LeaseTimeToLive "etcdserverpb.Lease" "LeaseTimeToLive";
    LeaseLeases "etcdserverpb.Lease" "LeaseLeases";
    MemberAdd "etcdserverpb.Cluster" "MemberAdd";
    MemberRemove "etcdserverpb.Cluster" "MemberRemove";
    MemberUpdate "etcdserverpb.Cluster" "MemberUpdate";
    MemberList "etcdserverpb.Cluster" "MemberList";
    MemberPromote "etcdserverpb.Cluster" "MemberPromote";
    Alarm "etcdserverpb.Maintenance" "Alarm";
    Status "etcdserverpb.Maintenance" "Status";
    Defragment "etcdserverpb.Maintenance" "Defragment";
    Hash "etcdserverpb.Maintenance" "Hash";
    HashKv "etcdserverpb.Maintenance" "HashKV";
    Snapshot "etcdserverpb.Maintenance" "Snapshot";
    MoveLeader "etcdserverpb.Maintenance" "MoveLeader";
    Downgrade "etcdserverpb.Maintenance" "Downgrade";
    AuthEnable "etcdserverpb.Auth" "AuthEnable";
    AuthDisable "etcdserverpb.Auth" "AuthDisable";
    AuthStatus "etcdserverpb.Auth" "AuthStatus";
    Authenticate "etcdserverpb.Auth" "Authenticate";
    UserAdd "etcdserverpb.Auth" "UserAdd";
    UserGet "etcdserverpb.Auth" "UserGet";
    UserList "etcdserverpb.Auth" "UserList";
    UserDelete "etcdserverpb.Auth" "UserDelete";
    UserChangePassword "etcdserverpb.Auth" "UserChangePassword";
    UserGrantRole "etcdserverpb.Auth" "UserGrantRole";
    UserRevokeRole "etcdserverpb.Auth" "UserRevokeRole";
    RoleAdd "etcdserverpb.Auth" "RoleAdd";
    RoleGet "etcdserverpb.Auth" "RoleGet";
    RoleList "etcdserverpb.Auth" "RoleList";
    RoleDelete "etcdserverpb.Auth" "RoleDelete";
    RoleGrantPermission "etcdserverpb.Auth" "RoleGrantPermission";
    RoleRevokePermission "etcdserverpb.Auth" "RoleRevokePermission";
    Campaign "v3electionpb.Election" "Campaign";
    Proclaim "v3electionpb.Election" "Proclaim";
    Leader "v3electionpb.Election" "Leader";
    Observe "v3electionpb.Election" "Observe";
    Resign "v3electionpb.Election" "Resign";
    Lock "v3lockpb.Lock" "Lock";
    Unlock "v3lockpb.Lock" "Unlock";
    HealthCheck "grpc.health.v1.Health" "Check";
    HealthList "grpc.health.v1.Health" "List";
    HealthWatch "grpc.health.v1.Health" "Watch";
}

impl Method {
    /// Whether the client may send more than one message, or the server does.
    pub fn is_streaming(self) -> bool {
        use Method::*;
        matches!(self, Watch | LeaseKeepAlive | Snapshot | Observe | HealthWatch)
    }

    /// What metrics label as `grpc_type`.
    pub fn kind_label(self) -> &'static str {
        match self {
            Method::Watch | Method::LeaseKeepAlive => "bidi_stream",
            method if method.is_streaming() => "server_stream",
            _ => "unary",
        }
    }
}

/// What a call of an unknown path is answered with, as grpc-go words it.
pub fn unknown_path(path: &str) -> Status {
    let text = match path.strip_prefix('/').and_then(|rest| rest.rsplit_once('/')) {
        None => format!("malformed method name: \"{path}\""),
        Some((service, method)) if Method::ALL.iter().any(|known| known.service() == service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    };
    Status::new(Code::Unimplemented, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_path() {
        for method in Method::ALL {
            let path = format!("/{}/{}", method.service(), method.name());
            assert_eq!(Method::of_path(&path), Some(*method));
        }
        assert_eq!(Method::of_path("/etcdserverpb.KV/range"), None);
    }

    #[test]
    fn unknown_paths_are_answered_as_grpc_go_does() {
        let text = |path| unknown_path(path).message.into_owned();
        assert_eq!(
            text("/etcdserverpb.KV/Nope"),
            "unknown method Nope for service etcdserverpb.KV"
        );
        assert_eq!(text("/nope.Nope/X"), "unknown service nope.Nope");
        assert_eq!(text("nope"), "malformed method name: \"nope\"");
    }
}
