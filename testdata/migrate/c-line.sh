#!/bin/sh
exec ./mtproto-proxy -H 443,8443 -S 0123456789abcdef0123456789abcdef --nat-info 10.0.0.2:192.0.2.2 --aes-pwd /etc/mtproxy/proxy-secret '/etc/mtproxy/a b.conf'
