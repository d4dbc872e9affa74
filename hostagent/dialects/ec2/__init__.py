"""EC2's instance metadata: `/latest` and the dated versions, which are all the same here.

`service` answers requests, `tokens` makes and checks tokens. What is told stands in `meta_data`
(the tree), `network`, `events`, `credentials` and `identity`.

Choices where no record of the original was at hand:

- A token is signed, not stored: 32 bytes of HMAC-SHA256 over its guest and its end of life. So
  tokens cost no memory and no other guest can use them. The secret comes from the signing key, and
  tokens outlive their responder; without a key they are refused with 401 after a restart, and
  clients ask for new ones. Their life is measured on the metadata plane's clock.
- Any PUT below a dated version or with X-Forwarded-For is 403; elsewhere, except for the token, it
  is 405. EC2 documents no query parameters: a query is ignored.
- Every answer ends its connection, as EC2's do. Last-Modified is the time of the launch.
- A leaf also answers with a trailing slash (botocore asks so), a directory also without one.
- Preempt is a spot interruption, shown from two minutes before; a hibernation, which begins with
  its notice, from its start. `rebalance` says when the recommendation comes; by default with the
  event. The others are scheduled maintenance from their creation: Freeze system-maintenance, Reboot
  system-reboot (instance-reboot if its source is User), Redeploy instance-stop, Terminate
  instance-retirement. Only events of the guest itself are shown.
- NotAfter is the end of the duration; of an unknown one, when the activity would expire.
- The event's ID is the first 17 digits of its UUID; an expired event counts as completed.
- An instance of an Auto Scaling group (`autoscaling_state`) goes to Terminated from the creation of
  a Terminate event on, and from the notice of a spot interruption.
- Credentials are made up. EC2 signs `pkcs7` with DSA; here one RSA key signs all three forms of the
  instance identity.
"""

from hostagent.dialects.ec2.service import UNAVAILABLE, Ec2, owns, refusal

__all__ = ["UNAVAILABLE", "Ec2", "owns", "refusal"]
