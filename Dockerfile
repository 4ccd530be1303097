# The whole image is one static program, its licences, and a user without a name.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=$(git describe --tags) .
#
# It writes nothing: run it with a read-only root. It holds no shell and no CA
# bundle; `sallyport ready` is the health check, and public roots are linked in.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETARCH
ARG VERSION=unversioned
RUN CGO_ENABLED=0 GOOS=linux GOARCH=$TARGETARCH \
      go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/sallyport ./cmd/sallyport \
 && bash .ci/licences /out/sallyport >/out/LICENSES

FROM scratch
ARG VERSION=unversioned
LABEL org.opencontainers.image.title="sallyport" \
      org.opencontainers.image.description="An egress gate for AWS Fargate: a forward proxy, explicit and transparent, that lets a task reach the names its policy lists" \
      org.opencontainers.image.source="https://github.com/sallyport/sallyport" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/sallyport /sallyport
COPY --from=build /out/LICENSES /LICENSES
COPY LICENSE /LICENSE
USER 65532:65532
EXPOSE 3128
ENTRYPOINT ["/sallyport"]
CMD ["serve"]
