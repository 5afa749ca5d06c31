"""``POST /v1/audio/speech`` and ``/v1/audio/transcriptions``."""

from fastapi import APIRouter

router = APIRouter()
