"""The rooms that import torch: modules under their published tensor names, and what runs them."""
