import os

# Before any import of the libraries; nothing may reach for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "serve.http.proxy:middlewares"
os.environ["TRITON_INTERPRET"] = "1"  # kernels for GPUs run on the CPU
