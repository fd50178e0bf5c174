"""The configuration files of table 3: each server with one worker, kept upstream connections, and nothing buffered."""

_PATHS = """
    client_body_temp_path {folder}/{name}-body;
    proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-fastcgi;
    uwsgi_temp_path {folder}/{name}-uwsgi;
    scgi_temp_path {folder}/{name}-scgi;
""".replace("{folder}", "{{folder}}")

UPSTREAM = (
    """
{user}
worker_processes 1;
daemon off;
pid {folder}/upstream.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    sendfile on;"""
    + _PATHS.format(name="upstream")
    + """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {folder};
        default_type application/json;
        location /up {{
            client_max_body_size 0;
            proxy_request_buffering off;
            proxy_http_version 1.1;
            proxy_pass http://127.0.0.1:{sink};
        }}
    }}
}}
"""
)

NGINX = (
    """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 0;"""
    + _PATHS.format(name="nginx")
    + """
    upstream behind {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""
)

APACHE_MODULES = ("mpm_event", "authz_core", "headers", "proxy", "proxy_http")

APACHE = """
ServerRoot {folder}
ServerName a
PidFile {folder}/apache.pid
Mutex file:{folder}
ErrorLog {folder}/apache.log
{modules}
{user}
Listen 127.0.0.1:{port}
ListenBacklog 4096
StartServers 1
ServerLimit 1
ThreadLimit 640
ThreadsPerChild 640
MaxRequestWorkers 640
MaxKeepAliveRequests 0
KeepAliveTimeout 60
ProxyPass "/" "http://127.0.0.1:{upstream}/" max=640 flushpackets=on
"""

CADDY = """
{{
    admin off
    auto_https off
    storage file_system {folder}/caddy
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{upstream} {{
        transport http {{
            keepalive_idle_conns_per_host 1024
        }}
    }}
}}
"""
