{{/*
nginx.conf. Its limits are those of Serve's proxies, from the same settings. What nginx answers
itself is a problem (RFC 9457) of the kinds that docs/http.md lists.
*/}}
{{- define "ryla-serve.nginx" -}}
{{- $gateway := .Values.gateway -}}
{{- $args := (first (include "ryla-serve.serveConfig" . | fromYaml).applications).args -}}
{{- $proxy := $args.proxy | default dict -}}
{{- $body := include "ryla-serve.maxBodyBytes" . -}}
{{- $head := get $proxy "max_head_bytes" | default 65536 | int64 -}}
{{- $headMs := mulf (get $proxy "head_timeout_s" | default 10) 1000 | int64 -}}
{{- $stallMs := mulf (get $proxy "stall_timeout_s" | default 10) 1000 | int64 -}}
{{- $timeout := add .Values.requestTimeoutSeconds 60 -}}
worker_processes 1;
worker_rlimit_nofile {{ add (mul 2 $gateway.connections) 256 }};
worker_shutdown_timeout {{ $gateway.drainSeconds }}s;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;

events {
    # A caller's connection and the one to a proxy, and some for nginx itself.
    worker_connections {{ add (mul 2 $gateway.connections) 128 }};
}

http {
    include /tmp/cluster.conf;  # the upstream `proxies`, from start.sh
    default_type application/problem+json;
    server_tokens off;

    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;

    # The service logs its own answers, so this logs only what did not reach it.
    map $upstream_status $refused {
        "" 1;
        default 0;
    }
    log_format refusal escape=json '{"time": "$time_iso8601", "caller": "$remote_addr", '
        '"status": $status, "method": "$request_method", "path": "$path", "seconds": $request_time, '
        '"request_bytes": $request_length, "request_id": "$name"}';
    access_log /dev/stdout refusal if=$refused;

    map $request_uri $path {
        "~^(?<before_query>[^?]*)" $before_query;
    }
    map $http_x_request_id $name {
        "~^[A-Za-z0-9._-]{1,128}$" $http_x_request_id;
        default $request_id;
    }
    # A proxy that no connection was made to has no time of connecting.
    map $upstream_connect_time $connected {
        "~[0-9]" 1;
        default 0;
    }
    map $request_id $instance {
        "~^(?<a>.{8})(?<b>.{4})(?<c>.{4})(?<d>.{4})(?<e>.{12})$" "urn:uuid:$a-$b-$c-$d-$e";
    }

    {{- with $gateway.trustedProxies }}

    # Whose word on the caller's address counts.
    {{- range . }}
    set_real_ip_from {{ . }};
    {{- end }}
    real_ip_header X-Forwarded-For;
    real_ip_recursive on;
    {{- end }}
    {{- if $gateway.requestsPerCaller }}

    # The requests that one caller has in progress: nobody takes all connections to the proxies.
    limit_conn_zone $binary_remote_addr zone=callers:10m;
    limit_conn_status 429;
    {{- end }}

    # The head of a request: its first line and headers share one buffer.
    client_header_buffer_size 1k;
    large_client_header_buffers 1 {{ $head }};
    client_header_timeout {{ $headMs }}ms;
    keepalive_timeout {{ $gateway.idleTimeoutSeconds }}s;

    # The body goes on as it arrives, under the proxies' own budgets of rate, time and memory.
    client_max_body_size {{ $body }};
    # Twice their time, so that they can say what is wrong; nginx only closes the connection.
    client_body_timeout {{ mul 2 $stallMs }}ms;
    proxy_request_buffering off;

    # Results go on as they arrive.
    proxy_buffering off;
    proxy_buffer_size 32k;  # of the headers of an answer
    proxy_buffers 4 32k;
    proxy_busy_buffers_size 64k;
    proxy_max_temp_file_size 0;
    send_timeout 300s;

    server {
        listen 8000 backlog=1024;
        # Locations with names would fail for a request whose path was never read.
        error_page 400 /.problem/bad_request;
        error_page 429 =503 /.problem/too_many;
        error_page 413 /.problem/body_too_large;
        error_page 414 494 =431 /.problem/head_too_large;
        error_page 502 503 =503 /.problem/unavailable;
        error_page 504 = /.problem/timeout;
        add_header X-Request-Id $name always;

        location / {
            {{- if $gateway.requestsPerCaller }}
            limit_conn callers {{ $gateway.requestsPerCaller }};
            {{- end }}
            proxy_pass http://proxies;
            proxy_http_version 1.1;
            # A pod that was lost remains an endpoint for some seconds, in which connections to it
            # fail. Such a request has not been sent and goes to another pod.
            proxy_connect_timeout 2s;
            proxy_next_upstream error timeout;
            proxy_next_upstream_timeout 10s;
            proxy_read_timeout {{ $timeout }}s;
            proxy_send_timeout {{ $timeout }}s;
            proxy_set_header Host $http_host;
            proxy_set_header X-Request-Id $name;
            # Serve's proxies trust it, so it has nothing that the caller wrote.
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_hide_header X-Request-Id;
        }
        {{- range $location, $problem := dict
            "bad_request" (list 400 "bad-request" "Bad request" "the request is not valid HTTP")
            "body_too_large" (list 413 "body-too-large" "Body too large" (printf "the body is over the limit of %s bytes" $body))
            "head_too_large" (list 431 "head-too-large" "Request head too large" (printf "the request line and the headers are over the limit of %d bytes; send data in the body" $head))
            "too_many" (list 503 "unavailable" "Not available now" (printf "%d requests from your address are in progress, which is as many as one caller may have" ($gateway.requestsPerCaller | int64)))
            "unavailable" (list 503 "unavailable" "Not available now" "the service does not answer, or was lost during the request; try again later")
            "timeout" (list 504 "timeout" "Time limit reached" (printf "the service did not answer within %d s" $timeout))
        }}
        location = /.problem/{{ $location }} {
            internal;
            {{- if has $location (list "unavailable" "too_many") }}
            add_header Retry-After 10 always;
            add_header X-Request-Id $name always;
            {{- else if eq $location "timeout" }}
            if ($connected = 0) {
                rewrite ^ /.problem/unavailable last;
            }
            {{- end }}
            return {{ index $problem 0 }} '{"type": "urn:ryla:problem:{{ index $problem 1 }}", "title": "{{ index $problem 2 }}", "status": {{ index $problem 0 }}, "detail": "{{ index $problem 3 }}", "instance": "$instance", "request_id": "$name"}';
        }
        {{- end }}
    }

    server {
        listen 8081;
        access_log off;
        location = /healthz {
            default_type text/plain;
            return 200 ok;
        }
    }
}
{{- end -}}

{{/*
Starts nginx with the address of the proxies' Service, which nginx reads at its start only: it is
read again when the address has changed, as after the operator has made the Service. The upstream has
the address several times, because each connection to a Service may reach another pod.
*/}}
{{- define "ryla-serve.nginxStart" -}}
set -eu
address() {
    getent hosts {{ include "ryla-serve.proxies" . }} | awk '{print $1; exit}'
}
# Until there is a Service, nothing listens on the port, which makes the answer a 503.
write() {
    case $1 in
        "") server=127.0.0.1:9 ;;
        *:*) server="[$1]:8000" ;;
        *) server="$1:8000" ;;
    esac
    {
        echo "upstream proxies {"
        for _ in 1 2 3 4; do echo "    server $server max_fails=0;"; done
        echo "}"
    } > /tmp/cluster.conf
}
known=$(address)
write "$known"
while sleep 2; do
    now=$(address)
    if [ -n "$now" ] && [ "$now" != "$known" ]; then
        write "$now"
        if nginx -c /etc/ryla/nginx.conf -s reload; then known=$now; fi
    fi
done &
exec nginx -c /etc/ryla/nginx.conf -g 'daemon off;'
{{- end -}}
