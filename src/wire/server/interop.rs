//! The server's connection on a loopback socket, spoken to by the `h2` crate.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::*;

/// Serves one connection until it ends: a message is echoed, `/metrics` is answered, `/big` gets 3 MB.
fn serve(mut socket: TcpStream) {
    let now = Monotonic(1);
    let mut connection = ServerConnection::new(ServerOptions::default(), now);
    let mut input = BytesMut::new();
    let mut piece = vec![0; 20_000];
    while !connection.is_finished() {
        let Ok(len) = socket.read(&mut piece) else { break };
        if len == 0 {
            connection.receive_end();
        }
        input.extend_from_slice(&piece[..len]);
        connection.receive(&mut input, now);
        while let Some(event) = connection.next_event() {
            match event {
                ServerEvent::Message { stream, message } => connection.send_unary(stream, message),
                ServerEvent::Http { stream, request } if request.target == "/big" => {
                    connection.respond(stream, &HttpResponse::new(200, "text/plain", vec![b'b'; 3_000_000]));
                }
                ServerEvent::Http { stream, request } => {
                    connection.respond(stream, &HttpResponse::new(200, "text/plain", request.target));
                }
                _ => {}
            }
        }
        while !connection.output().is_empty() {
            let output = connection.output();
            let Ok(written) = socket.write(output) else { return };
            output.advance(written);
        }
    }
}

fn server() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        serve(socket);
    });
    (address, thread)
}

fn request(path: &str, grpc: bool) -> http::Request<()> {
    let builder = http::Request::builder()
        .uri(format!("http://127.0.0.1{path}"))
        .method(if grpc { "POST" } else { "GET" });
    let builder = if grpc {
        builder
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "10S")
    } else {
        builder
    };
    builder.body(()).unwrap()
}

async fn body(mut stream: h2::RecvStream) -> (Bytes, Option<http::HeaderMap>) {
    let mut whole = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        whole.extend_from_slice(&chunk);
    }
    (whole.freeze(), stream.trailers().await.unwrap())
}

async fn echo(client: h2::client::SendRequest<Bytes>, len: usize) {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(len as u32);
    message.resize(5 + len, len as u8);
    let message = message.freeze();
    let mut client = client.ready().await.unwrap();
    let (response, mut sender) = client.send_request(request("/a.B/Echo", true), false).unwrap();
    sender.send_data(message.clone(), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (bytes, trailers) = body(response.into_body()).await;
    assert!(bytes == message);
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}

#[test]
fn h2_crate_calls_and_requests_are_answered() {
    let (address, thread) = server();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(40_001)
            .handshake::<_, Bytes>(socket)
            .await
            .unwrap();
        let connection = tokio::task::spawn_local(connection);
        let mut calls = Vec::new();
        for number in 0..300usize {
            let len = [0, 1, 29, 5_000, 70_000][number % 5];
            calls.push(tokio::task::spawn_local(echo(client.clone(), len)));
        }
        for (path, len) in [("/metrics", 8), ("/big", 3_000_000)] {
            let mut client = client.clone().ready().await.unwrap();
            let (response, _) = client.send_request(request(path, false), true).unwrap();
            let (bytes, trailers) = body(response.await.unwrap().into_body()).await;
            assert_eq!(bytes.len(), len);
            assert!(trailers.is_none());
        }
        // A cancelled call leaves the others alone.
        let mut other = client.clone().ready().await.unwrap();
        let (_, mut sender) = other.send_request(request("/a.B/Echo", true), false).unwrap();
        sender.send_reset(h2::Reason::CANCEL);
        for call in calls {
            call.await.unwrap();
        }
        echo(client.clone(), 10).await;
        drop((client, other, sender));
        connection.await.unwrap().unwrap();
    });
    thread.join().unwrap();
}

#[test]
fn http11_requests_on_a_socket_are_answered() {
    let (address, thread) = server();
    let mut socket = TcpStream::connect(address).unwrap();
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    write!(
        socket,
        "GET /health HTTP/1.1\r\nHost: h\r\n{upgrade}\r\nGET /version HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\n/health\
         HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 8\r\nconnection: close\r\n\r\n/version"
    );
    thread.join().unwrap();
}
