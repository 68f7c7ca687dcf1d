"""Text, an image or another sound → sound.

Public names are resolved on first use (PEP 562), so that ``import audioldm`` and ``audioldm -h`` cost
milliseconds and import neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import InputError as InputError
    from .latent_diffusion.model import LatentDiffusion as LatentDiffusion
    from .options import GenerateOptions as GenerateOptions
    from .outputs.destination import get_time as get_time
    from .pipeline import build_model as build_model
    from .pipeline import image_to_audio as image_to_audio
    from .pipeline import style_transfer as style_transfer
    from .pipeline import super_resolution_and_inpainting as super_resolution_and_inpainting
    from .pipeline import text_to_audio as text_to_audio
    from .utils import get_duration as get_duration
    from .utils import round_up_duration as round_up_duration
    from .utils import save_wave as save_wave
    from .utils import seed_everything as seed_everything

__version__ = "0.1.0"

_HOME = {  # public name -> module that defines it
    "InputError": "errors",
    "GenerateOptions": "options",
    "LatentDiffusion": "latent_diffusion.model",
    "build_model": "pipeline",
    "text_to_audio": "pipeline",
    "image_to_audio": "pipeline",
    "style_transfer": "pipeline",
    "super_resolution_and_inpainting": "pipeline",
    "save_wave": "utils",
    "get_time": "outputs.destination",
    "seed_everything": "utils",
    "get_duration": "utils",
    "round_up_duration": "utils",
}
__all__ = [
    "GenerateOptions", "InputError", "LatentDiffusion", "__version__", "build_model", "get_duration", "get_time",
    "image_to_audio", "round_up_duration", "save_wave", "seed_everything", "style_transfer",
    "super_resolution_and_inpainting", "text_to_audio",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # not asked again
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
