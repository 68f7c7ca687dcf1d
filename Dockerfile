# The page on a server without a GPU:
#     docker build -t audioldm-web . && docker run --rm -p 127.0.0.1:7860:7860 audioldm-web
# torch's default build for Linux brings gigabytes for GPUs. --build-arg PIP_EXTRA_INDEX_URL=... names an index with a
# build for CPUs.
FROM python:3.11-slim

ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL
WORKDIR /app
COPY setup.py pyproject.toml constraints.txt README.md LICENSE LICENSE-Apache-2.0 NOTICE ./
COPY translator translator
COPY prior_steps prior_steps
COPY audioldm audioldm
COPY models models
COPY examples examples
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[web]" \
    && useradd --create-home sound

USER sound
ENV PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=5)"]
CMD ["audioldm-web", "--host", "0.0.0.0", "--port", "7860"]
