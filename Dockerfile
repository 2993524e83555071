# The server of an exported model: ONNX Runtime, no TensorFlow. docs/deploy.md says how to run it.
#
#     docker build -t chestxray-server .
#     docker run --read-only --cap-drop ALL -p 8000:8000 -v "$PWD/runs/x/export:/models:ro" chestxray-server

FROM python:3.12-slim AS build
WORKDIR /src
COPY deploy deploy
COPY pyproject.toml README.md LICENSE ./
COPY chestxray chestxray
RUN deploy/install_server.sh /opt/chestxray

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin chestxray
COPY --from=build /opt/chestxray /opt/chestxray
ENV PATH=/opt/chestxray/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["chestxray", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/models/model.onnx"]
