"""The Wan video engine: loads diffusers' models, samples latents and decodes them as a stream.

Nothing here imports Ray. Packages import only from lower layers: ``build``, ``placement``,
``engine``, ``acceleration``, ``mode``, ``sampling`` and ``vae``, ``checkpoints``, ``kernels``,
``memory``.
"""
