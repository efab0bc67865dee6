import os

# Engines run on the CPU on any machine, as what they are compared with does. CUDA reads this when
# it is used first, so that no library can find a GPU after it.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
