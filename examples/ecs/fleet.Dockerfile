# The proxy's image with the fleet's configuration and the CA of its database:
# Fargate mounts no files. From the project's folder:
#
#   curl -o examples/ecs/rds.pem https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
#   docker buildx build -f examples/ecs/fleet.Dockerfile -t sallyport-fleet:0.1.0 examples
ARG SALLYPORT=111122223333.dkr.ecr.us-east-1.amazonaws.com/sallyport:0.1.0
FROM ${SALLYPORT}
COPY --chmod=444 config/fleet.yaml /etc/sallyport/sallyport.yaml
COPY --chmod=444 ecs/rds.pem /etc/sallyport/rds.pem
ENV SALLYPORT_CONFIG=/etc/sallyport/sallyport.yaml
