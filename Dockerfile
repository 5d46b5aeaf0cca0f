# syntax=docker/dockerfile:1
# retrograd on the CPU. Runs and models are read from, and written to, the volume /work:
#
#   docker build -t retrograd .
#   docker run --rm -v "$PWD:/work" retrograd search runs/joint 'Who wrote the first program?'
#   docker run --rm -p 8080:8080 -v "$PWD:/work" retrograd serve runs/joint --host 0.0.0.0   # prints a token
FROM python:3.11-slim AS build
# uv takes the CPU build of torch by name; pip would take one with several GB of CUDA packages.
ENV UV_TORCH_BACKEND=cpu UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN uv venv /opt/retrograd \
    && VIRTUAL_ENV=/opt/retrograd uv pip install --no-cache -c constraints.txt '.[builtin,documents,faiss,gguf,bm25,graph,plots,serve]'

FROM python:3.11-slim
RUN useradd --create-home --uid 1000 retrograd && mkdir /work && chown retrograd /work
COPY --from=build /opt/retrograd /opt/retrograd
ENV PATH=/opt/retrograd/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
USER 1000
WORKDIR /work
VOLUME /work
EXPOSE 8080
ENTRYPOINT ["retrograd"]
CMD ["--help"]
